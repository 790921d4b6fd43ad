"""Owns finding slides in object stores: only formats that keep a slide in one file."""

from wsi_seg.errors import SlideError
from wsi_seg.files.object_path import ObjectPath

# Formats that need no other file; volumes hold many slides, and DICOM slides are many files.
_SINGLE_FILE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".png", ".jpg", ".jpeg", ".bmp", ".webp",
)  # fmt: skip


def single_file_slides(path: ObjectPath) -> list[ObjectPath]:
    """List the slides under an address, or the address itself if it is a file.

    Raises
    ------
    SlideError
        If there is no slide, or the address cannot be read.
    """
    try:
        if path.is_file():
            return [path]
        every = sorted(path.sizes())
    except OSError as error:
        raise SlideError(f"cannot read {path}: {error.strerror or error}") from error
    hidden = {one for one in every if any(n.startswith(".") for n in one.relative_to(path).parts)}
    kept = [one for one in every if one.suffix.lower() in _SINGLE_FILE_SUFFIXES]
    if found := [one for one in kept if one not in hidden]:
        return found
    raise SlideError(
        f"{path}: holds no single-file slide; expected files ending in "
        f"{', '.join(_SINGLE_FILE_SUFFIXES)}; copy slides of many files (DICOM, MRXS, volumes, "
        "OME-Zarr) to a local folder first"
    )
