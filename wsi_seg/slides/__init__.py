"""Owns reading slide files: open_slide picks the reader by content."""

from pathlib import Path

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.slides.slide import Recode, Slide, TileStreams, slide_name

__all__ = ["Recode", "Slide", "TileStreams", "find_slides", "open_slide", "slide_name"]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Formats whose files do not begin like a TIFF, or whose tiles tifffile cannot place.
_OPENSLIDE_SUFFIXES = {".bif", ".mrxs", ".svslide", ".vms", ".vmu"}
_SUFFIXES = _OPENSLIDE_SUFFIXES | {
    ".bmp",
    ".jpeg",
    ".jpg",
    ".ndpi",
    ".png",
    ".scn",
    ".svs",
    ".tif",
    ".tiff",
    ".webp",
}


def open_slide(path: Path, *, mpp: float | None = None) -> Slide:
    """Open a slide or plain image, by its content.

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per px of level 0; replaces what the file says.

    Raises
    ------
    SlideError
        If the file does not exist, is not a slide, or is damaged.
    UnsupportedSlideError
        If it is a slide of a kind that is not read.
    """
    if path.is_dir():
        from wsi_seg.slides.dicom import open_dicom

        return open_dicom(path, mpp=mpp)
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise SlideError(f"{path}: is empty; expected a slide")
    if path.suffix.lower() in _OPENSLIDE_SUFFIXES:
        from wsi_seg.slides.openslide import OpenSlideSlide

        return OpenSlideSlide(path, mpp=mpp)
    if head[128:] == b"DICM" or path.suffix.lower() == ".dcm":
        from wsi_seg.slides.dicom import open_dicom

        return open_dicom(path, mpp=mpp)
    if head[:4] in _TIFF_MAGIC:
        return _open_tiff(path, mpp)
    from wsi_seg.slides.image import open_image

    return open_image(path, mpp=mpp)


def _open_tiff(path: Path, mpp: float | None) -> Slide:
    """Open a TIFF by ourselves, or through OpenSlide where it is of a kind only that reads."""
    from wsi_seg.slides.tiff import TiffSlide

    try:
        return TiffSlide(path, mpp=mpp)
    except UnsupportedSlideError:
        from wsi_seg.slides.openslide import OpenSlideSlide, recognises

        if not recognises(path):
            raise
        return OpenSlideSlide(path, mpp=mpp)


def find_slides(paths: list[Path]) -> list[Path]:
    """List the slide files among these files and, by file extension, in these folders.

    Hidden files are left out. Folders are searched with all their subfolders.

    Raises
    ------
    SlideError
        If a path does not exist, or a folder holds no slide.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in _SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and file.is_file()
        )
        if not inside:
            raise SlideError(
                f"{path}: holds no slide; expected files ending in {', '.join(sorted(_SUFFIXES))}"
            )
        found += inside
    return list(dict.fromkeys(found))
