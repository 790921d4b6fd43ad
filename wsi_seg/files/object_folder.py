"""Owns concurrent writing and copying of many objects in an object store."""

import errno
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import PurePath

from wsi_seg.errors import OutputError
from wsi_seg.files.object_path import REQUESTS, ObjectPath, object_path

# Objects to write, and their content; None for one that must not exist.
Objects = dict[ObjectPath, bytes | None]

# Size in bytes and ETag.
Version = tuple[int, str | None]

# Attempts to write objects; a listing after each one shows which are missing.
_LOOKS = 5


def for_each[T, R](path: PurePath, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function for each item; in threads if the path is in an object store."""
    if object_path(path) is None:
        return [work(item) for item in items]
    return _in_threads(work, items)


def _in_threads[T, R](work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(work, items))


def put_all(objects: Mapping[ObjectPath, bytes | None], within: ObjectPath | None = None) -> None:
    """Write objects concurrently, and check that all exist, those of a folder with one listing.

    Parameters
    ----------
    objects
        Their content; an object with None is removed if it exists.
    within
        Folder to list, which contains all of them; None to list the folder of each.

    Raises
    ------
    OutputError
        If an object cannot be written or is missing afterwards.
    """
    left = dict(objects)

    def write(path: ObjectPath) -> Version:
        content = left[path] or b""
        return len(content), path.put(content)

    try:
        for _ in range(_LOOKS):
            filled = [path for path, content in left.items() if content is not None]
            put = dict(zip(filled, _in_threads(write, filled), strict=True))
            there = _found(left, within)
            if too_many := [path for path in left.keys() - put.keys() if path in there]:
                too_many[0].remove_all(too_many)
            left = {path: left[path] for path in filled if not _is_kept(path, put[path], there)}
            if not left:
                return
    except OSError as error:
        name = error.filename or next(iter(left))
        raise OutputError(
            f"cannot write {name}: {error.strerror or error}; repeat the command to continue"
        ) from error
    raise _forgotten(next(iter(left)))


def _found(paths: Collection[ObjectPath], within: ObjectPath | None) -> dict[ObjectPath, Version]:
    """Return those of these objects that exist, and others in their folders."""
    of_each = Counter(within or path.parent for path in paths)

    def found_by(path: ObjectPath) -> dict[ObjectPath, Version]:
        if path not in paths:
            return path.versions()
        with suppress(FileNotFoundError):
            stat = path.stat()
            return {path: (stat.st_size, stat.version)}
        return {}

    folders = [folder for folder, count in of_each.items() if count > 1]
    alone = [path for path in paths if of_each[within or path.parent] == 1]
    listings = _in_threads(found_by, [*folders, *alone])
    return {path: version for listing in listings for path, version in listing.items()}


def _is_kept(path: ObjectPath, put: Version, there: Mapping[ObjectPath, Version]) -> bool:
    """Return whether the object exists as it was put; asked for if a listing shows otherwise."""
    return path in there and (_plain(there[path]) == _plain(put) or path.is_kept(*put))


def _plain(version: Version) -> Version:
    """Remove the quotes of an ETag, which listings of Azure do not have."""
    size, tag = version
    return size, tag and tag.strip('"')


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
        _in_threads(write, left)
        there = folder.sizes()
        left = [path for path in left if there.get(path) != sizes[path]]
        if not left:
            return
    raise _forgotten(left[0])


def _forgotten(path: ObjectPath) -> OutputError:
    return OutputError(
        f"{path} was accepted {_LOOKS} times, and is not there afterwards; repeat the command"
    )
