"""Owns temporary local copies of slides in object stores."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_seg.errors import AddressError, OutputError
from wsi_seg.files.object_path import ObjectPath

# Slides staged at a time: the current one and the next one.
SLIDES = 2

_PART_BYTES = 2**24
_PARTS = 4  # concurrent downloads
_PREFIX = "wsi-seg-stage-"


@contextmanager
def staging(folder: Path | None) -> Iterator[Path]:
    """Create a folder and remove it afterwards; if this process is killed, the next one removes it.

    Parameters
    ----------
    folder
        Parent folder, created if missing; None for the system's temporary folder.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    root = Path(tempfile.gettempdir()) if folder is None else folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_PREFIX}*"):
            _remove_left(left)
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        descriptor = os.open(made, os.O_RDONLY)
    except OSError as error:
        raise OutputError.of(root, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


def _remove_left(folder: Path) -> None:
    """Remove a folder unless a process has locked it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if any(folder.iterdir()):  # an empty one may not be locked yet
                shutil.rmtree(folder)
        finally:
            os.close(descriptor)


def fetch(
    sizes: Mapping[ObjectPath, int],
    files: Mapping[ObjectPath, Path],
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Download objects to files in parts, and check their sizes.

    Parameters
    ----------
    sizes
        Size in bytes of each object.
    files
        Local file of each object.
    is_wanted
        Called before each part; if it returns False, the remaining parts are skipped.

    Raises
    ------
    AddressError
        If an object cannot be downloaded, or its file is incomplete.
    OutputError
        If there is not enough space, or files cannot be written.
    """
    folder = Path(os.path.commonpath([file.parent for file in files.values()]))
    try:
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        _require_room(sum(sizes.values()), folder)
        parts = [(one, at) for one, size in sizes.items() for at in range(0, size, _PART_BYTES)]

        def part(remote: ObjectPath, begin: int) -> int:
            if not is_wanted():
                return 0
            nbytes = min(_PART_BYTES, sizes[remote] - begin)
            data = remote.read_spans([(begin, nbytes)])[0]
            with files[remote].open("r+b") as file:
                file.seek(begin)
                return file.write(data)

        came = dict.fromkeys(sizes, 0)  # the size of a file does not show a skipped part
        with ThreadPoolExecutor(_PARTS) as threads:
            written = threads.map(part, *zip(*parts, strict=True))
            for (remote, _), nbytes in zip(parts, written, strict=True):
                came[remote] += nbytes
    except (AddressError, OutputError):
        raise
    except OSError as error:
        raise OutputError.of(folder, error, step="fetch into") from error
    for remote, size in sizes.items():
        if came[remote] != size:
            reason = f"got {came[remote]} of {size} bytes; repeat the command"
            raise AddressError(errno.EIO, reason, str(remote))


def _require_room(nbytes: int, folder: Path) -> None:
    if (free := shutil.disk_usage(folder).free) < nbytes:
        raise OutputError(
            f"got a slide of {nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in "
            f"{folder.parent}; give another folder with --stage"
        )


def fetch_one(remote: ObjectPath, file: Path) -> None:
    """Download an object, and raise an error if it changed in the meantime; see `fetch`."""
    try:
        before = remote.stat()
        fetch({remote: before.st_size}, {remote: file})
        after = remote.stat()
    except FileNotFoundError as error:
        raise AddressError(errno.ENOENT, "there is no such object", str(remote)) from error
    if after != before:
        raise AddressError(
            errno.EIO, "changed while it was downloaded; repeat the command", str(remote)
        )
