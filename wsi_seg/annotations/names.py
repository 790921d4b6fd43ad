"""Owns matching names to slides: names of files, of COCO images and in csv rows.

A name is compared as it is, then joined with its folders as in `wsi-seg tile --names path`, then
without folders and image suffix. Exact matches are preferred, then those that differ only in
Unicode normalisation (NFC and NFD), then those that differ only in case.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from wsi_seg.counts import list_names
from wsi_seg.errors import AnnotationError

# Suffixes of images and of exported label maps. Any other, such as the 7 in "slide.7", may be part
# of a slide's name.
_IMAGE_SUFFIX = re.compile(
    r"(\.labels)?(\.ome)?"
    r"\.(tiff?|btf|tf[28]|svs|svslide|ndpi|mrxs|scn|bif|vm[su]|vsi|czi|lif|nd2|qptiff|isyntax"
    r"|dcm|dicom|zarr|ozx|png|jpe?g|jpe|jp2|j2k|jpx|jxl|bmp|webp|gif|avif|heic|mh[ad]|nii(\.gz)?|nrrd"
    r"|npy|lsm|pgm|ppm|pnm)$",
    re.IGNORECASE,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MAX_FOLDERS = 8


@dataclass(frozen=True, slots=True)
class Match:
    """Slide that a name matches, and how: 0 exactly, 1 after NFC, 2 ignoring case."""

    slide: str
    rank: int


class SlideNames:
    """Matches names to slides.

    Parameters
    ----------
    slides
        Names of the slides.
    """

    def __init__(self, slides: Iterable[str]) -> None:
        self._slides: list[dict[str, list[str]]] = [{}, {}, {}]
        for slide in slides:
            for known, spelling in zip(self._slides, _spellings(slide), strict=True):
                known.setdefault(spelling, []).append(slide)

    def find(self, name: str) -> Match | None:
        """Return the slide that a name matches; None if there is none.

        Raises
        ------
        AnnotationError
            If it matches several equally well.
        """
        forms = list(dict.fromkeys(_forms(name)))
        for rank, known in enumerate(self._slides):
            for form in forms:
                matching = known.get(_spellings(form)[rank], [])
                if len(matching) > 1:
                    raise AnnotationError(
                        f"the name {name!r} matches several slides: {list_names(matching)}; "
                        "spell it as one of them"
                    )
                if matching:
                    return Match(matching[0], rank)
        return None

    def assign(self, path: Path, names: Iterable[str]) -> tuple[Mapping[str, str], list[str]]:
        """Match the images of one file to slides.

        Parameters
        ----------
        path
            The file, for messages.
        names
            Names of its images.

        Returns
        -------
        dict[str, str]
            Slide by image name, for images that match a slide.
        list[str]
            Images that match no slide, or one that another image matches better.

        Raises
        ------
        AnnotationError
            If two images match one slide equally well.
        """
        slides: dict[str, str] = {}
        best: dict[str, tuple[int, str]] = {}
        unmatched: list[str] = []
        for name in dict.fromkeys(names):
            try:
                match = self.find(name)
            except AnnotationError as error:
                raise AnnotationError(f"{path}: {error}") from error
            if match is None:
                unmatched.append(name)
                continue
            rank, other = best.get(match.slide, (len(self._slides), ""))
            if rank == match.rank:
                raise AnnotationError(
                    f"{path}: got {other!r} and {name!r}, which both match slide {match.slide!r}; "
                    "remove one, or import them into separate collections"
                )
            if rank < match.rank:
                unmatched.append(name)
                continue
            if other:
                unmatched.append(other)
                del slides[other]
            best[match.slide] = (match.rank, name)
            slides[name] = match.slide
        return slides, unmatched


def _spellings(name: str) -> tuple[str, str, str]:
    """Return the name as it is, in NFC, and case-folded."""
    composed = unicodedata.normalize("NFC", name)
    return name, composed, unicodedata.normalize("NFC", composed.casefold())


def _forms(name: str) -> Iterator[str]:
    """Yield the forms of a name to compare: with and without folders and suffix, also of URLs."""
    yield name
    yield name.strip()
    *folders, last = re.split(r"[/\\]", name.strip())
    for count in range(min(_MAX_FOLDERS, len(folders)), 0, -1):
        yield "_".join([*folders[-count:], _IMAGE_SUFFIX.sub("", last)])
    for whole in (name, name.strip()):
        yield whole.rpartition("/")[2]
        yield _IMAGE_SUFFIX.sub("", whole.rpartition("/")[2])
    yield last
    yield _IMAGE_SUFFIX.sub("", last)
    if _URL.match(name):
        last = unquote(re.split("[?#]", name.strip())[0].rpartition("/")[2])
        yield last
        yield _IMAGE_SUFFIX.sub("", last)
