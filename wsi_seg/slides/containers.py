"""Owns magic numbers: of DICOM, and of files that are not slides, such as archives."""

import zipfile
from pathlib import Path

_KNOWN = (
    (b"\x1f\x8b", "gzip; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"\x89HDF\r\n\x1a\n", "HDF5; save it as OME-TIFF or OME-Zarr"),
    (b"ZISRAWFILE", "Zeiss CZI; save it as OME-TIFF or OME-Zarr"),
    (b"\xda\xce\xbe\x0a", "Nikon ND2; save it as OME-TIFF or OME-Zarr"),
    (b"%PDF", "PDF; save its pictures"),
)
_ZARR_METADATA = {".zattrs", ".zgroup", "zarr.json"}


def is_dicom(path: Path) -> bool:
    """Return whether a file has DICOM's magic number."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def known_container(path: Path, head: bytes) -> str:
    """Return what a file is and what to do with it, as the end of a message; empty if unknown.

    Parameters
    ----------
    path
        The file.
    head
        Its first bytes.
    """
    if head.startswith(b"PK\x03\x04"):
        if _holds_zarr(path):
            return "got a zipped OME-Zarr; expected its folder; unzip it"
        return "got a ZIP archive; expected a slide; unzip it"
    found = next((what for begin, what in _KNOWN if head.startswith(begin)), "")
    return f"got {found.replace('; ', '; expected a slide; ', 1)}" if found else ""


def _holds_zarr(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name in _ZARR_METADATA for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return path.name.lower().endswith((".zarr.zip", ".ozx"))
