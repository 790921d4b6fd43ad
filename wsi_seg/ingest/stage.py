"""Owns the folder of this machine into which slides of object stores are fetched, few at a time."""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_seg.errors import OutputError, SlideError
from wsi_seg.object_path import ObjectPath, object_path

# Slides that are there at a time: one that is worked on, and the next one.
_SLIDES = 2
_PART_BYTES = 2**24
_PARTS = 4  # fetched at a time

_PREFIX = "wsi-seg-stage-"


class Stage:
    """Keeps copies of remote slides while they are worked on.

    Parameters
    ----------
    folder
        Made where absent; None is the system's folder of temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._places = threading.BoundedSemaphore(_SLIDES)

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        """Give a slide as a file of this machine: itself, or a copy that is removed afterwards.

        Raises
        ------
        SlideError
            If it cannot be fetched, or changes meanwhile.
        OutputError
            If there is no room for it.
        """
        if (remote := object_path(path)) is None:
            yield path
            return
        with self._places, self._place() as folder:
            yield _fetch(remote, folder / path.name)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """Make a folder of this process; those of processes that were killed are removed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(f"{_PREFIX}*"):
                _remove_left(left)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._folder))
        except OSError as error:
            raise OutputError(f"cannot write {self._folder}: {error.strerror or error}") from error
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _remove_left(folder: Path) -> None:
    """Remove a folder that no process has locked."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)


def _require_room(remote: ObjectPath, nbytes: int, folder: Path) -> None:
    if (free := shutil.disk_usage(folder).free) < nbytes:
        raise OutputError(
            f"{remote} has {nbytes / 1e9:.1f} GB and {folder} room for {free / 1e9:.1f} GB; give "
            "another folder with --stage"
        )


def _fetch(remote: ObjectPath, file: Path) -> Path:
    """Fetch an object, in parts, and compare its size and time before and after."""
    try:
        before = remote.stat()
        _require_room(remote, before.st_size, file.parents[1])
        with file.open("wb") as target:

            def part(begin: int) -> None:
                data = remote.read_spans([(begin, min(_PART_BYTES, before.st_size - begin))])[0]
                os.pwrite(target.fileno(), data, begin)

            with ThreadPoolExecutor(_PARTS) as threads:
                list(threads.map(part, range(0, before.st_size, _PART_BYTES)))
        after = remote.stat()
    except OutputError:
        raise
    except OSError as error:
        raise SlideError(f"cannot fetch {remote}: {error.strerror or error}") from error
    if after != before or file.stat().st_size != before.st_size:
        raise SlideError(
            f"{remote} changed while it was fetched: {before.st_size} bytes, then {after.st_size}, "
            f"of which {file.stat().st_size} came; repeat the command"
        )
    return file
