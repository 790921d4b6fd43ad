"""Owns creating a collection, and the list of its slides."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.half_written import is_half_written
from wsi_seg.files.object_folder import for_each
from wsi_seg.files.object_path import object_path
from wsi_seg.files.shared import opened_again
from wsi_seg.store.group import create_group, wsi_seg_attributes
from wsi_seg.store.names import METADATA, OWN
from wsi_seg.store.own import make_own_folder

# Folders that file systems have at their root, unreadable for users.
_OF_DISKS = {"lost+found"}


def create_collection(path: Path) -> None:
    """Create an empty collection, unless it exists.

    Raises
    ------
    StoreError
        If the path is a zarr group of another program.
    OutputError
        If it cannot be written, or the path exists and is not a collection.
    """
    file = path / METADATA
    is_there = file.is_file()
    is_foreign = not is_there and not _is_of_a_start(path)
    if is_there or (is_foreign and file.is_file()):  # another process may create it now
        if wsi_seg_attributes(file).get("kind") != "collection":
            raise StoreError(f"{path} is a zarr group of another program; choose another --out")
        make_own_folder(path)
        return
    if is_foreign:
        raise OutputError(f"{path} exists and is not a collection; choose another --out")
    make_own_folder(path)
    _write(path, [])


def _is_of_a_start(path: Path) -> bool:
    """Return whether a path only contains files of commands that are starting or were killed."""
    try:
        children = [child.name for child in path.iterdir()]
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    return all(name == OWN or is_half_written(name) for name in children)


def update_names(path: Path) -> None:
    """Store the names of a collection's slides, for readers on web servers without listings."""
    # Concurrent processes may store outdated names, so names are compared again after writing.
    listed: object = None
    if object_path(path) is not None:
        listed = wsi_seg_attributes(path / METADATA).get("slides")
    known = [str(name) for name in listed] if isinstance(listed, list) else []
    while (found := sorted(slides_in(path, known=known))) != listed:
        _write(path, found)
        listed = known = found


def slides_in(path: Path, *, known: Iterable[str] = ()) -> Iterator[str]:
    """Iterate over complete stores in a folder, unsorted; ``known`` ones are not checked."""
    whole = set(known)
    if object_path(path) is not None:
        every = [one.name for one in path.iterdir()]
        names = [name for name in every if name[0] != "." and name != METADATA]
        looked = for_each(
            path, lambda name: name in whole or (path / name / METADATA).is_file(), names
        )
        yield from (name for name, is_whole in zip(names, looked, strict=True) if is_whole)
        return
    with os.scandir(path) as folders:
        for folder in folders:
            if folder.name[0] == "." or folder.name in _OF_DISKS:
                continue
            if folder.name in whole or _is_file(f"{folder.path}/{METADATA}"):
                yield folder.name


def _is_file(path: str) -> bool:
    """Return whether a file exists; an error if that is unknown, unlike ``os.path.isfile``."""
    try:
        return stat.S_ISREG(opened_again(lambda: os.stat(path)).st_mode)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False


def _write(path: Path, names: Sequence[str]) -> None:
    create_group(path, {"kind": "collection", "slides": list(names)})
