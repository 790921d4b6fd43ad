"""Owns reading files of a network file system that other machines may replace or remove."""

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path

from wsi_seg.files.object_path import object_path

# Times that a file is opened again which another machine has replaced meanwhile.
_STALE = 5


def read_replaced(path: Path) -> bytes:
    """Read a file that other machines may replace meanwhile, as `write_atomic` does.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return read_version(path)[0]


def read_version(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a file as `read_replaced` does, and what is another value once it was replaced."""
    if (remote := object_path(path)) is not None:
        content = remote.read_bytes()
        return content, (0, zlib.crc32(content))  # not every server reports when it was written

    def read() -> tuple[bytes, tuple[int, int]]:
        with path.open("rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            return file.readall(), (stat.st_ino, stat.st_mtime_ns)

    return opened_again(read)


def opened_again[Found](read: Callable[[], Found]) -> Found:
    """Open and read something, and do so again where it was replaced meanwhile.

    On a network file system what was opened is gone once another machine has replaced or removed
    it, or its server was started again ("stale file handle"); opened again, it is the new one.

    Parameters
    ----------
    read
        Opens and reads; nothing that it has opened before is of use.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    for _ in range(_STALE):
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return read()


def names_in(folder: Path) -> list[str]:
    """List a folder that other machines may remove meanwhile; it is then empty."""
    try:
        return opened_again(lambda: [path.name for path in folder.iterdir()])
    except (FileNotFoundError, NotADirectoryError):
        return []
