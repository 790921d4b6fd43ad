"""Owns the names of files while they are written: whose each one is, and which a kill has left."""

import os
import re
import socket
import threading
import zlib
from pathlib import Path

# Bytes of a name that usual file systems take.
LONGEST_NAME = 255


def partial_path(path: Path) -> Path:
    """Name under which this thread writes a file; a kill may leave it, see `partials_in`.

    It ends in ``.partial``. No other thread or process has it, on this machine or another one, so
    two that write one file do not write into each other's.
    """
    mark = partial_mark(socket.gethostname(), os.getpid())
    own = f"{threading.get_native_id():x}.{mark}"
    name = f".{path.name}.{own}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{zlib.crc32(os.fsencode(path.name)):08x}.{own}.partial"
    return path.with_name(name)


def partial_mark(host: str, pid: int) -> str:
    """Eight digits before ``.partial`` in the names of all files that a process writes."""
    return f"{zlib.crc32(f'{host} {pid}'.encode()):08x}"


def is_half_written(name: str) -> bool:
    """Whether a file is being written, or was when its process was killed, by us or by zarr."""
    return name.endswith((".partial", ".tmp"))


def partials_in(folder: Path) -> dict[Path, str]:
    """Find files that are half written, or were left so, and the mark of their process."""
    found = {}
    for path in folder.glob(".*.partial"):
        mark = path.name.split(".")[-2]
        if re.fullmatch(r"[0-9a-f]{8}", mark):  # others are written otherwise
            found[path] = mark
    return found
