"""Owns writing a file or a folder whole or not at all, so that it outlives a kill.

Also on a network file system: only renames and fsyncs are relied on, and what other machines have
replaced is opened again.
"""

import contextlib
import errno
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsi_seg.errors import OutputError

# Bytes of a name that usual file systems take.
LONGEST_NAME = 255

# Times that a file is opened again which another machine has replaced meanwhile.
_STALE = 5

# What NFS says of a folder from which a file was removed that this machine has open.
_IN_USE = {errno.EBUSY, errno.ENOTEMPTY}

# Files whose way to the disk is waited for at a time.
_SYNCS = 8

# What file systems say that write the names of a folder at once, and offer no fsync of it (SMB).
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF}


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
            remove_tree(left)
        partial.mkdir(parents=True)
        yield partial
        sync_tree(partial)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        sync(path.parent)
        remove_tree(old)
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
    own = zlib.crc32(f"{socket.gethostname()} {os.getpid()}".encode())
    name = f".{path.name}.{own:08x}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{zlib.crc32(os.fsencode(path.name)):08x}.{own:08x}.partial"
    return path.with_name(name)


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

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return read_version(path)[0]


def read_version(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a file as `read_replaced` does, and what is another value once it was replaced."""

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


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path, *, wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Wait until a folder with all that is in it is on the disk.

    Parameters
    ----------
    folder
        What is not on the disk yet, or not for certain.
    wanted
        Which names of files are waited for; of folders it is all.
    """
    unsynced = []
    for inside, _, files in folder.walk():
        unsynced += [inside / name for name in files if wanted(name)]
        unsynced.append(inside)
    with ThreadPoolExecutor(_SYNCS) as threads:
        list(threads.map(sync, unsynced))


def remove_tree(folder: Path) -> None:
    """Remove a folder that nobody looks for any more, if it exists.

    What this machine still reads of it is left on NFS, which removes it once it is closed.

    Raises
    ------
    OSError
        If something else cannot be removed.
    """

    def unless_in_use(_: object, __: str, error: BaseException) -> None:
        if not (isinstance(error, FileNotFoundError) or _errno(error) in _IN_USE):
            raise error

    shutil.rmtree(folder, onexc=unless_in_use)


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def names_in(folder: Path) -> list[str]:
    """List a folder that other machines may remove meanwhile; it is then empty."""
    try:
        return opened_again(lambda: [path.name for path in folder.iterdir()])
    except FileNotFoundError:
        return []
