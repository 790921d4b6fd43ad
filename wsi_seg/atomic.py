"""Owns writing a file or a folder whole or not at all, so that it outlives a kill."""

import contextlib
import errno
import os
import shutil
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from wsi_seg.errors import OutputError

# Bytes of a name that usual file systems take.
LONGEST_NAME = 255

# Times that a file is opened again which another machine has replaced meanwhile.
_STALE = 5


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the final name when the block ends well.

    File and folder are on the disk when it returns. After an error the old file, if there was
    one, is as it was, and nothing is left of the new one.

    Parameters
    ----------
    path
        The file's final name; its folder is made where absent.

    Yields
    ------
    Path
        Next to the final name, hidden, and of this process alone; see `partial_path`.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.

    Examples
    --------
    >>> with atomic_path(folder / "scores.csv") as partial:  # doctest: +SKIP
    ...     frame.to_csv(partial)
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        if isinstance(error, OutputError):  # of something else, written inside of the block
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the final name when the block ends well.

    After an error what was there before is as it was, and nothing is left of the new one.

    Parameters
    ----------
    path
        The folder's final name; its parent is made where absent. What is there is replaced.

    Yields
    ------
    Path
        Next to the final name, empty.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    # Names that the next process has too: it removes what a kill has left.
    partial, old = (path.with_name(f".{path.name}.{mark}") for mark in ("partial", "old"))
    try:
        for left in (partial, old):  # by a kill
            if left.exists():
                shutil.rmtree(left)
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
        sync(path.parent)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """Name under which this process writes a file; a kill may leave it.

    It ends in ``.partial``. No other process has it, on this machine or another one, so two that
    write one file do not write into each other's.
    """
    own = partial_mark(socket.gethostname(), os.getpid())
    name = f".{path.name}.{own}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{zlib.crc32(os.fsencode(path.name)):08x}.{own}.partial"
    return path.with_name(name)


def partial_mark(host: str, pid: int) -> str:
    """Eight digits before ``.partial`` in the names of all files that a process writes."""
    return f"{zlib.crc32(f'{host} {pid}'.encode()):08x}"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file that is at hand as bytes, or as text to be encoded as UTF-8.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def read_replaced(path: Path) -> bytes:
    """Read a file that other machines may replace meanwhile, as `write_atomic` does.

    On a network file system the file that was opened is then gone ("stale file handle"); opened
    again, it is the new one.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    for _ in range(_STALE):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return path.read_bytes()


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
