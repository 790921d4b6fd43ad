"""Owns reading files, and making folders, that others may replace or remove (stale NFS handles)."""

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path

from wsi_seg.files.object_path import object_path

# Attempts to reopen a file after ESTALE, and to make a folder that others remove.
_STALE, _REMOVED = 5, 5


def read_replaced(path: Path) -> bytes:
    """Read a file that other machines may replace at the same time with `write_atomic`.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return read_version(path)[0]


def read_version(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a file as `read_replaced` does; also return a version, which changes when it does."""
    if (remote := object_path(path)) is not None:
        content = remote.read_bytes()
        return content, (0, zlib.crc32(content))  # some servers report no modification time

    def read() -> tuple[bytes, tuple[int, int]]:
        with path.open("rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            return file.readall(), (stat.st_ino, stat.st_mtime_ns)

    return opened_again(read)


def opened_again[Found](read: Callable[[], Found]) -> Found:
    """Call a function that opens and reads files, and repeat it after ESTALE ("stale file handle").

    NFS reports ESTALE for an open file that another machine replaced or removed, or after the
    server restarted; reopening the path gives the current file.

    Parameters
    ----------
    read
        Opens and reads; must not reuse files opened by an earlier call.

    Raises
    ------
    OSError
        If ``read`` fails for another reason, or repeatedly.
    """
    for _ in range(_STALE):
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return read()


def make_folder(path: Path) -> None:
    """Create a folder and its parents, unless it exists; others may remove it at the same time.

    Raises
    ------
    OSError
        If it cannot be created, or there is a file in its place.
    """
    for _ in range(_REMOVED):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # pathlib also raises it for a folder that was removed since
            if os.path.lexists(path) and not path.is_dir():
                raise
        else:
            return
    path.mkdir(parents=True, exist_ok=True)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder; empty if it does not exist or was just removed."""
    try:
        return opened_again(lambda: [path.name for path in folder.iterdir()])
    except (FileNotFoundError, NotADirectoryError):
        return []
