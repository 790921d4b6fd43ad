"""Owns which slide a name in a file means: one rule for files, COCO's images and rows of a csv.

A name is compared whole, then with its folders as `wsi-seg tile --names path` joins them, then
without them and without the ending of a picture.
What is spelled exactly alike goes first, then what differs in how letters with accents are made up
(Unicode's NFC and NFD), then what differs in case.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from wsi_seg.errors import AnnotationError

# Endings of pictures, and of label maps that we export. Any other, such as the 7 of "slide.7", may
# be a part of a slide's name.
_PICTURE = re.compile(
    r"(\.labels)?(\.ome)?"
    r"\.(tiff?|btf|tf[28]|svs|svslide|ndpi|mrxs|scn|bif|vm[su]|vsi|czi|lif|nd2|qptiff|isyntax"
    r"|dcm|dicom|zarr|ozx|png|jpe?g|jpe|jp2|j2k|jpx|jxl|bmp|webp|gif|avif|heic|mh[ad]|nii(\.gz)?|nrrd"
    r"|npy|lsm|pgm|ppm|pnm)$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NAMED = 5
_FOLDERS = 8


def named(names: Iterable[str]) -> str:
    """List some names for a message, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Fit:
    """Slide that a name means, and how well it fits: 0 is exactly, 1 by NFC, 2 but for case."""

    slide: str
    rank: int


class SlideNames:
    """Finds the slides that names mean.

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

    def find(self, name: str) -> Fit | None:
        """Find the slide that a name means; None where it fits none.

        Raises
        ------
        AnnotationError
            If it fits several equally well.
        """
        forms = list(dict.fromkeys(_forms(name)))
        for rank, known in enumerate(self._slides):
            for form in forms:
                fitting = known.get(_spellings(form)[rank], [])
                if len(fitting) > 1:
                    raise AnnotationError(
                        f"the name {name!r} fits several slides: {named(fitting)}; spell it as one "
                        "of them"
                    )
                if fitting:
                    return Fit(fitting[0], rank)
        return None

    def assign(self, path: Path, names: Iterable[str]) -> tuple[Mapping[str, str], list[str]]:
        """Give the images of one file to the slides.

        Parameters
        ----------
        path
            The file, for messages.
        names
            Names of its images.

        Returns
        -------
        dict[str, str]
            Slide by name, of those that fit one.
        list[str]
            Names that fit none, or that fit one to which another name fits better.

        Raises
        ------
        AnnotationError
            If two names fit one slide equally well.
        """
        slides: dict[str, str] = {}
        best: dict[str, tuple[int, str]] = {}
        strangers: list[str] = []
        for name in dict.fromkeys(names):
            try:
                fit = self.find(name)
            except AnnotationError as error:
                raise AnnotationError(f"{path}: {error}") from error
            if fit is None:
                strangers.append(name)
                continue
            rank, other = best.get(fit.slide, (len(self._slides), ""))
            if rank == fit.rank:
                raise AnnotationError(
                    f"{path}: got {other!r} and {name!r}, which both fit slide {fit.slide!r}; "
                    "leave one out, or give them to collections of their own"
                )
            if rank < fit.rank:
                strangers.append(name)
                continue
            if other:
                strangers.append(other)
                del slides[other]
            best[fit.slide] = (fit.rank, name)
            slides[name] = fit.slide
        return slides, strangers


def _spellings(name: str) -> tuple[str, str, str]:
    """Name as it is, in NFC, and without regard to case."""
    composed = unicodedata.normalize("NFC", name)
    return name, composed, unicodedata.normalize("NFC", composed.casefold())


def _forms(name: str) -> Iterator[str]:
    """Name whole, stripped, without folders, without its ending; as paths and as addresses."""
    yield name
    yield name.strip()
    *folders, last = re.split(r"[/\\]", name.strip())
    for count in range(min(_FOLDERS, len(folders)), 0, -1):
        yield "_".join([*folders[-count:], _PICTURE.sub("", last)])
    for whole in (name, name.strip()):
        yield whole.rpartition("/")[2]
        yield _PICTURE.sub("", whole.rpartition("/")[2])
    yield last
    yield _PICTURE.sub("", last)
    if _ADDRESS.match(name):
        last = unquote(re.split("[?#]", name.strip())[0].rpartition("/")[2])
        yield last
        yield _PICTURE.sub("", last)
