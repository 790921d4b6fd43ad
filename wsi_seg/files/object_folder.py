"""Owns concurrent writing and copying of many objects in an object store."""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

from wsi_seg.errors import OutputError
from wsi_seg.files.object_path import REQUESTS, ObjectPath, object_path

# Attempts to write objects; a listing after each one shows which are missing.
_LOOKS = 5


def for_each[T, R](path: PurePath, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function for each item; in threads if the path is in an object store."""
    if object_path(path) is None:
        return [work(item) for item in items]
    with ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(work, items))


def put_all(folder: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Write objects, given by their paths in the folder, and check with a listing that all exist.

    Raises
    ------
    OutputError
        If an object cannot be written or is missing afterwards.
    """
    try:
        _until_there(
            folder,
            {folder / name: len(content) for name, content in files.items()},
            lambda path: path.put(files["/".join(path.relative_to(folder).parts)]),
        )
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error


def copy_folder(
    source: ObjectPath, target: ObjectPath, *, last: str, without: Sequence[str] = ()
) -> None:
    """Copy a folder within its bucket, and check with a listing that all objects exist.

    Parameters
    ----------
    source, target
        The folder, and its copy.
    last
        Object to copy after all others exist.
    without
        Objects and folders to skip.

    Raises
    ------
    OSError
        If the folder cannot be copied.
    """
    out = [source / name for name in without]
    sizes = {
        target / path.relative_to(source): size
        for path, size in source.sizes().items()
        if not any(path.is_relative_to(other) for other in out)
    }
    if target / last not in sizes:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", str(source / last))
    mark = {target / last: sizes.pop(target / last)}
    for some in (sizes, mark):
        _until_there(target, some, lambda path: (source / path.relative_to(target)).copy_to(path))


def _until_there(
    folder: ObjectPath, sizes: Mapping[ObjectPath, int], write: Callable[[ObjectPath], object]
) -> None:
    """Write objects of these sizes in bytes until a listing of the folder contains all of them."""
    left = list(sizes)
    for _ in range(_LOOKS):
        for_each(folder, write, left)
        there = folder.sizes()
        left = [path for path in left if there.get(path) != sizes[path]]
        if not left:
            return
    raise OutputError(f"{left[0]} was written and is not there; repeat the command")
