"""Owns finding slides in object stores: files that hold a whole slide each."""

from wsi_seg.errors import SlideError
from wsi_seg.object_path import ObjectPath

# Endings of files that need no other file; volumes and DICOM are many slides, or many files.
_WHOLE = (
    ".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".png", ".jpg", ".jpeg", ".bmp", ".webp",
)  # fmt: skip


def whole_files(path: ObjectPath) -> list[ObjectPath]:
    """List the slides below an address, or the one that it is.

    Raises
    ------
    SlideError
        If there is none, or it cannot be read.
    """
    try:
        if path.is_file():
            return [path]
        every = sorted(path.sizes())
    except OSError as error:
        raise SlideError(f"cannot read {path}: {error.strerror or error}") from error
    hidden = {one for one in every if any(n.startswith(".") for n in one.relative_to(path).parts)}
    if found := [one for one in every if one.suffix.lower() in _WHOLE and one not in hidden]:
        return found
    raise SlideError(
        f"{path}: holds no slide of one file; expected files ending in {', '.join(_WHOLE)}; copy "
        "slides of many files (DICOM, MRXS, volumes, OME-Zarr) into a folder of this machine first"
    )
