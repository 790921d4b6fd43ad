"""Owns keeping two commands off one folder: a lock of the kernel, and a note about its holder.

The lock ends with its process, however that ends, so no lock is ever stale; the note only says
which command to wait for. Reading takes no lock: nothing unfinished can be read.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_seg.address import is_remote
from wsi_seg.errors import BusyError, OutputError
from wsi_seg.store.names import LOCK


@contextmanager
def locked(folder: Path, verb: str, *, make: bool = False) -> Iterator[None]:
    """Hold a folder while a command writes to it.

    Parameters
    ----------
    folder
        Collection or run. Addresses are only read, so they are not held.
    verb
        What the command is called, for the message that others get.
    make
        Whether the folder is made where it is absent, and removed again if it stays empty;
        otherwise there is nothing to hold.

    Raises
    ------
    BusyError
        If another command holds it; names its verb, process, host and time.
    OutputError
        If the lock cannot be written.
    """
    there = is_remote(folder) or folder.exists()
    if is_remote(folder) or not (there or make):
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(folder / LOCK)
    except OSError as error:
        raise OutputError(f"cannot write {folder / LOCK}: {error.strerror or error}") from error
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, _note(verb).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(descriptor)
        if not there:
            with suppress(OSError):
                folder.rmdir()


def _acquire(path: Path) -> int:
    """Open and lock the file; again if its last owner removed it meanwhile."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise BusyError(
                f"{path.parent} is in use by {owner}; wait until that has ended, or end it, and "
                "repeat the command"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _note(verb: str) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    host = socket.gethostname()
    return json.dumps({"verb": verb, "pid": os.getpid(), "host": host, "started": started})


def _owner(note: bytes) -> str:
    try:
        found = json.loads(note)
        return f"`{found['verb']}` (process {found['pid']} on {found['host']}, {found['started']})"
    except (ValueError, LookupError, TypeError):
        return "another command"
