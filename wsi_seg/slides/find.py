"""Owns finding the slides in folders.

A folder is searched with all its subfolders. Skipped, and reported: images and folders whose names
end in thumb, thumbnail, macro, label, overview, preview or mask; PNG, JPEG, BMP and WebP files next
to a scanner's slides (SVS, NDPI, MRXS ...) or next to a TIFF of the same name; labels and overviews
of DICOM slides; Zarr groups that are not images. Files with other suffixes are slides if a plug-in
reader opens them. A file that is named explicitly is never skipped.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from wsi_seg.errors import SlideError
from wsi_seg.files.object_path import object_path
from wsi_seg.slides.containers import is_dicom
from wsi_seg.slides.omezarr_images import describe_group, is_ome_zarr, is_zarr
from wsi_seg.slides.readers import may_be_read
from wsi_seg.slides.remote import single_file_slides
from wsi_seg.slides.slide import slide_name

logger = logging.getLogger(__name__)

# Formats that are not TIFF files, or whose tile positions tifffile does not know.
OPENSLIDE_SUFFIXES = {".bif", ".mrxs", ".svslide", ".vms", ".vmu"}
DICOM_SUFFIXES = {".dcm", ".dicom"}
VOLUME_SUFFIXES = {".mha", ".mhd", ".nii", ".nii.gz", ".nrrd"}
_SCANNER_SUFFIXES = OPENSLIDE_SUFFIXES | {".ndpi", ".scn", ".svs"}
_TIFF_SUFFIXES = {".tif", ".tiff"}
_PICTURE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_FILE_SUFFIXES = _SCANNER_SUFFIXES | _TIFF_SUFFIXES | _PICTURE_SUFFIXES
# Suffixes of the files and folders in which slides with this suffix keep their pixels.
_COMPANIONS = {".mrxs": ("",), ".mhd": (".raw", ".zraw", ".RAW")}
_ASSOCIATED = re.compile(r"(?:^|[-_. ])(thumb|thumbnail|macro|label|overview|preview|mask)s?$")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that a search skipped, and why (the end of a sentence)."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a search: slides, in order of paths and slices, and what was skipped.

    Parameters
    ----------
    slides
        The slides.
    skipped
        Files and folders that may be images but are not slides.
    others
        Number of other files by suffix.
    roots
        Folder that was searched, by slide found in it; explicitly named files have no entry.
    """

    slides: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    roots: Mapping[Path, Path] = field(default_factory=dict)


def find_slides(paths: list[Path]) -> list[Path]:
    """List the slides among these files and in these folders; see `search_slides`.

    Skipped files and other files are each logged as one warning.
    """
    found = search_slides(paths)
    log_skipped(found)
    return list(found.slides)


def log_skipped(found: Found) -> None:
    """Warn about the files that a search skipped: how many, and of which kinds."""
    if found.others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(found.others.items()))
        logger.warning("skipped by suffix: %s; name a file explicitly to try it", kinds)
    if found.skipped:
        first = found.skipped[0]
        logger.warning(
            "skipped %d next to the slides, such as %s (%s); name a file explicitly to use it",
            len(found.skipped), first.path, first.reason,
        )  # fmt: skip


def search_slides(paths: list[Path]) -> Found:
    """Find the slides among these files and in these folders, by the rules of this module.

    Hidden files are ignored. Each z slice of a volume or DICOM series is a slide.

    Raises
    ------
    SlideError
        If a folder holds no slide.
    """
    slides: list[Path] = []
    skipped: list[Skipped] = []
    others: Counter[str] = Counter()
    roots: dict[Path, Path] = {}
    for path in paths:
        if (remote := object_path(path)) is not None:
            whole = [cast("Path", one) for one in single_file_slides(remote)]
            slides += whole
            roots |= {} if whole == [path] else dict.fromkeys(whole, path)
            continue
        if not path.is_dir():
            slides += _slices(path) if volume_suffix(path) and path.is_file() else [path]
            continue
        inside = list(_search(path))
        taken = [item for item in inside if isinstance(item, Path)]
        skipped += (item for item in inside if isinstance(item, Skipped))
        others.update(item.suffix for item in inside if isinstance(item, _Other))
        if not taken:
            raise SlideError(_no_slide(path, skipped, others))
        slides += taken
        roots |= dict.fromkeys(taken, path)
    return Found(tuple(dict.fromkeys(slides)), tuple(skipped), others, roots)


def volume_suffix(path: Path) -> str:
    """Return the suffix of a volume's file name; empty for other files."""
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix == ".gz" else path.suffix.lower()
    return suffix if suffix in VOLUME_SUFFIXES else ""


@dataclass(frozen=True, slots=True)
class _Other:
    """A file whose suffix is not that of a slide."""

    suffix: str


def _search(folder: Path) -> Iterator[Path | Skipped | _Other]:
    """Yield everything in a folder, as slides, skipped paths and other files."""
    if is_zarr(folder):
        if is_ome_zarr(folder):
            yield folder
        else:
            yield Skipped(folder, describe_group(folder))
        return
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        yield Skipped(folder, f"cannot be read: {error.strerror or error}")
        return
    files = [path for path in inside if path.is_file()]
    yield from _take_dicom(folder, files)
    slides = [path for path in files if not _associated(path)]
    suffixes = {path.suffix.lower() for path in slides}
    tiffs = {path.stem for path in slides if path.suffix.lower() in _TIFF_SUFFIXES}
    companions = {
        path.with_suffix(ending).name
        for path in files
        for ending in _COMPANIONS.get(path.suffix.lower(), ())
    }
    for path in inside:
        associated = _associated(path)
        if path.is_dir():
            # Links to folders may form cycles.
            if path.name in companions:
                continue
            reason = "a link to a folder" if path.is_symlink() else associated
            yield from [Skipped(path, reason)] if reason else _search(path)
        elif volume_suffix(path) or path.suffix.lower() in _FILE_SUFFIXES:
            reason = associated or _accompanies(path, suffixes, tiffs)
            if reason:
                yield Skipped(path, reason)
            else:
                yield from _slices(path) if volume_suffix(path) else [path]
        elif path.is_file() and path.name not in companions and not _may_be_dicom(path):
            yield path if may_be_read(path) else _Other(_suffix(path))


def _suffix(path: Path) -> str:
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return suffix.lower() or "without a suffix"


def _may_be_dicom(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in DICOM_SUFFIXES
    try:
        return is_dicom(path)
    except OSError:
        return False


def _take_dicom(folder: Path, files: list[Path]) -> Iterator[Path | Skipped]:
    dicom = [path for path in files if path.suffix.lower() in DICOM_SUFFIXES or not path.suffix]
    if not dicom:
        return
    from wsi_seg.slides.series import find_series

    series = find_series(folder, dicom)
    yield from series.slides
    for path in series.associated:
        yield Skipped(path, "label, overview or thumbnail of a DICOM slide")


def _accompanies(path: Path, suffixes: set[str], tiffs: set[str]) -> str:
    """Return why a picture belongs to a slide next to it; empty if it does not."""
    if path.suffix.lower() not in _PICTURE_SUFFIXES:
        return ""
    if suffixes & _SCANNER_SUFFIXES:
        return "a picture next to a scanner's slides"
    return "a picture next to a TIFF of the same name" if path.stem in tiffs else ""


def _associated(path: Path) -> str:
    """Return why a name is that of an associated image or mask; empty if it is not."""
    found = _ASSOCIATED.search(slide_name(path).lower())
    return f"its name says {found.group(1)}" if found else ""


def _slices(volume: Path) -> list[Path]:
    from wsi_seg.slides.volume import list_slices

    try:
        return list_slices(volume)
    except SlideError:
        return [volume]  # opening it will report the error


def _no_slide(folder: Path, skipped: list[Skipped], others: Mapping[str, int]) -> str:
    if skipped and skipped[-1].path == folder:
        return f"{folder}: holds no slide: it is {skipped[-1].reason}"
    if skipped:
        return (
            f"{folder}: holds no slide; skipped {len(skipped)}, such as "
            f"{skipped[0].path} ({skipped[0].reason}); name files explicitly to use them"
        )
    suffixes = sorted(_FILE_SUFFIXES | DICOM_SUFFIXES | VOLUME_SUFFIXES | {".zarr"})
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
    left = f", but {kinds}" if kinds else ""
    return f"{folder}: holds no slide{left}; expected files ending in {', '.join(suffixes)}"
