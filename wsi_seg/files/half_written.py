"""Owns the temporary names of files being written, which identify the process that writes."""

import os
import re
import shutil
import socket
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Maximum length in bytes of a file name on common file systems.
LONGEST_NAME = 255


def partial_path(path: Path) -> Path:
    """Return the temporary path for a file that this thread writes.

    It ends in ``.partial`` and is unique among threads, processes and machines, so concurrent
    writers of one file do not collide. `partials_in` finds files left by killed processes.
    """
    mark = partial_mark(socket.gethostname(), os.getpid())
    own = f"{threading.get_native_id():x}.{mark}"
    name = f".{path.name}.{own}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{_short(path.name)}.{own}.partial"
    return path.with_name(name)


def partial_mark(host: str, pid: int) -> str:
    """Return the 8 hexadecimal digits that identify a process in its temporary file names."""
    return f"{zlib.crc32(f'{host} {pid}'.encode()):08x}"


def is_half_written(name: str) -> bool:
    """Return whether this is the temporary name of a file that wsi_seg or zarr writes."""
    return name.endswith((".partial", ".tmp"))


def partials_in(folder: Path) -> dict[Path, str]:
    """Return the partially written files in a folder, each with the mark of its process."""
    found = {}
    for path in folder.glob(".*.partial"):
        mark = path.name.split(".")[-2]
        if re.fullmatch(r"[0-9a-f]{8}", mark):  # skips temporary files of other programs
            found[path] = mark
    return found


def remove_partials(files: Iterable[Path]) -> None:
    """Remove what killed processes left of files that were written completely since.

    Parameters
    ----------
    files
        Complete files that nobody writes any more.
    """
    names = defaultdict[Path, set[str]](set)
    for file in files:
        names[file.parent] |= {file.name, _short(file.name)}
    for folder, complete in names.items():
        for path in partials_in(folder):
            if path.name[1:].rsplit(".", 3)[0] in complete:
                path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder next to a path, and remove it afterwards.

    Its name depends only on the path, so that the next process removes what a killed one left.
    """
    scratch = path.with_name(f".{_short(path.name)}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _short(name: str) -> str:
    return f"{zlib.crc32(os.fsencode(name)):08x}"
