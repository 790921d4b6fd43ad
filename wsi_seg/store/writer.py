"""Owns writing pixels in strips of shards, and renaming finished groups."""

import contextlib
import errno
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial as bind
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import move_folder, remove_folder, remove_tree, require_writable
from wsi_seg.files.durable import sync, sync_all
from wsi_seg.files.half_written import is_half_written
from wsi_seg.files.object_folder import Objects, put_all
from wsi_seg.files.object_path import object_path
from wsi_seg.store.arrays import LevelArray, read_level_array
from wsi_seg.store.cache import shared_pool
from wsi_seg.store.digests import files_in, write_digests
from wsi_seg.store.group import list_label, unlist_label
from wsi_seg.store.names import JOURNAL, LABELS, METADATA, PARTIAL, SHARED
from wsi_seg.store.shards import write_shard

Pixels = NDArray[np.uint8]

# Concurrent writes of shards.
_WRITES = 8


def strip_rows(path: Path, level: int = 0) -> int:
    """Return the rows of a strip, which is the shard height of this level in pixels."""
    return read_level_array(path / str(level)).shard.height


def write_strip(path: Path, level: int, y: int, rows: Pixels) -> dict[str, int]:
    """Write one strip: all shards of these rows, each atomically.

    Parameters
    ----------
    path
        Group created by `create_multiscale`.
    level
        Level to write.
    y
        First row, a multiple of `strip_rows`.
    rows
        ``(H, W, C)``, or ``(H, W)`` for a label, uint8; full width, and `strip_rows` high, or up
        to the end of the level. Chunks that contain only the fill value are not stored.

    Returns
    -------
    dict[str, int]
        `shard_checksum` of each shard by its path inside the group; empty shards have no file.

    Raises
    ------
    StoreError
        If ``rows`` have another shape or dtype.
    OutputError
        If a shard cannot be written.
    """
    return write_strip_of(read_level_array(path / str(level)), y, rows)


def write_strip_of(
    array: LevelArray, y: int, rows: Pixels, objects: Objects | None = None
) -> dict[str, int]:
    """Write one strip of an open level; see `write_strip` and `write_rows`."""
    height = min(array.shard.height, array.extent.height - y)
    shape = array.shape(max(0, height), array.extent.width)
    if y % array.shard.height or rows.shape != shape or rows.dtype != np.uint8:
        raise StoreError(
            f"{array.path}: got rows {rows.shape} {rows.dtype} at y={y}; expected {shape} uint8 "
            f"at a multiple of {array.shard.height}"
        )
    return shard_checksums(array, y, write_rows(array, y, rows, objects))


def shard_checksums(array: LevelArray, y: int, checksums: Sequence[int | None]) -> dict[str, int]:
    """Map paths of shards inside the group to the checksums that `write_rows` returned."""
    paths = (array.shard_path(y // array.shard.height, column) for column in range(len(checksums)))
    return {
        path.relative_to(array.path.parent).as_posix(): checksum
        for path, checksum in zip(paths, checksums, strict=True)
        if checksum is not None
    }


def write_rows(
    array: LevelArray, y: int, rows: Pixels, objects: Objects | None = None
) -> list[int | None]:
    """Write one strip of an open level, without checks; see `write_strip`.

    Parameters
    ----------
    array, y, rows
        See `write_strip`.
    objects
        In an object store, receives the shards for `put_all`; None to write them now.

    Returns
    -------
    list[int or None]
        `shard_checksum` of each shard, left to right; None for an empty shard.
    """
    # All chunks are submitted at once, to encode while other shards are written.
    shards = [
        shared_pool().map(bind(_encode, array), _cut(array, rows[:, x : x + array.shard.width]))
        for x in range(0, array.extent.width, array.shard.width)
    ]

    is_remote = object_path(array.path) is not None
    later: Objects = {} if objects is None else objects

    def write(column: int) -> int | None:
        path = array.shard_path(y // array.shard.height, column)
        return write_shard(path, list(shards[column]), later)

    if is_remote or len(shards) == 1:
        written = [write(column) for column in range(len(shards))]
    else:
        with ThreadPoolExecutor(min(_WRITES, len(shards))) as threads:
            written = list(threads.map(write, range(len(shards))))
    if is_remote:
        if objects is None:
            put_all(later)
    elif any(checksum is not None for checksum in written):
        sync_shard_names(array, y // array.shard.height)
    return written


def sync_shard_names(array: LevelArray, row: int) -> None:
    """Fsync the folders of a row of shards, up to the folder of the level."""
    folder = array.shard_path(row, 0)
    try:
        while folder != array.path:
            folder = folder.parent
            sync(folder)
    except OSError as error:
        raise OutputError.of(folder, error) from error


def commit(
    partial: Path, final: Path, *, replace: bool = False, known: Mapping[str, int] | None = None
) -> None:
    """Write the digests of a finished group, and rename it to its final name; see `rename`.

    Parameters
    ----------
    partial, final, replace
        See `rename`.
    known
        See `write_digests`.

    Raises
    ------
    OutputError
        If the digests cannot be written, or the group cannot be renamed.
    """
    seal(partial, known)
    rename(partial, final, replace=replace)


def seal(partial: Path, known: Mapping[str, int] | None = None) -> None:
    """Write the digests of a finished group, its last files; see `write_digests`.

    Raises
    ------
    OutputError
        If the digests cannot be written.
    """
    is_local = object_path(partial) is None
    files = _sweep(partial) if is_local else files_in(partial)
    files += write_digests(partial, known, files=files)
    if not is_local:
        return
    # All files and the folders of shards were synced when they were written.
    named = (Path(name) for name in files if name.endswith(".json"))
    try:
        sync_all({partial / folder for name in named for folder in name.parents})
    except OSError as error:
        raise OutputError.of(partial, error) from error


def rename(
    partial: Path, final: Path, *, replace: bool = False, without: Sequence[str] = ()
) -> None:
    """Rename a finished group with digests to its final name, atomically.

    In an object store its metadata, which mark it as complete, are copied last.

    Parameters
    ----------
    partial, final
        The finished group, and its final path.
    replace
        Whether to replace an existing group, which is removed after the rename.
    without
        Files not to copy in an object store, in addition to those shared by processes.

    Raises
    ------
    OutputError
        If it cannot be renamed, for example because the final path exists, or another process
        has taken over and completed it.
    """
    is_local = object_path(partial) is None
    try:
        if is_local and not final.parent.is_dir():
            final.parent.mkdir(parents=True, exist_ok=True)
        if final.parent.name == LABELS:
            list_label(final.parent, final.name)  # before the rename: a kill leaves no orphan
        _rename(partial, final, replace=replace, without=(SHARED, *without))
    except OSError as error:
        raise OutputError.of(f"{partial} to {final}", error, step="rename") from error


def _rename(partial: Path, final: Path, *, replace: bool, without: Sequence[str]) -> None:
    """Rename a group; on disks, an existing group is removed after that."""
    if not (partial / METADATA).is_file():  # this process may have been suspended
        raise OSError(
            errno.ENOENT,
            "another process took over and did so, because this one did not respond for a minute "
            "and seemed to have ended; repeat the command",
        )
    old = final
    if replace and final.exists():
        if object_path(final) is None:
            old = _aside(partial.with_name(final.name), "old")
            delete(old)
            final.rename(old)
        else:
            delete(final)
    try:
        move_folder(partial, final, last=METADATA, first=JOURNAL, without=without)
    except OSError:
        if old.exists() and not final.exists():
            old.rename(final)
        raise
    if old != final:
        delete(old)


def remove_if_empty(group: Path) -> None:
    """Remove the group's folder for unfinished work if nothing is left in it.

    Not part of `commit`, because another slide may be about to start there.
    """
    with contextlib.suppress(OSError):
        (group / PARTIAL).rmdir()


def delete(path: Path) -> None:
    """Remove a group and its contents, if it exists.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    removed = _aside(path, "gone")
    try:
        if object_path(path) is not None:
            require_writable(path)
            # A journal without units records nothing as done.
            remove_folder(path / SHARED)
            (path / JOURNAL).unlink(missing_ok=True)
            remove_folder(path, first=METADATA)
            return
        remove_tree(removed)
        # Renamed first, so that a kill does not leave part of it as a group.
        path.rename(removed)
        remove_tree(removed)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError.of(path, error, step="remove") from error


def _aside(path: Path, mark: str) -> Path:
    """Return a temporary path for a group that will be removed.

    Names of slides never start with a dot. The name is hashed, because it may have the maximum
    length already.
    """
    return path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.{mark}")


def _sweep(group: Path) -> list[str]:
    """Remove partially written files, and return the relative paths of the others."""
    kept = []
    for name in files_in(group):
        if is_half_written(name):
            (group / name).unlink(missing_ok=True)
        else:
            kept.append(name)
    return kept


def delete_label(group: Path, name: str) -> None:
    """Remove a label of a slide, if it exists.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    unlist_label(group / LABELS, name)  # first: a kill must not leave part of it listed
    delete(group / LABELS / name)


def _cut(array: LevelArray, part: Pixels) -> Iterator[Pixels | None]:
    """Yield the chunks of one shard in C order, padded; None for those outside the level."""
    rows, columns = array.grid
    size = array.chunk
    for row in range(rows):
        for column in range(columns):
            chunk = part[
                row * size.height : (row + 1) * size.height,
                column * size.width : (column + 1) * size.width,
            ]
            if not chunk.size:
                yield None
            elif chunk.shape == array.chunk_shape:
                yield chunk
            else:
                yield _padded(chunk, array)


def _padded(chunk: Pixels, array: LevelArray) -> Pixels:
    """Pad a chunk at the border of its level with 0, or with edge pixels for a lossy codec."""
    missing = [full - have for full, have in zip(array.chunk_shape, chunk.shape, strict=True)]
    exact = array.encoding.exact
    return np.pad(chunk, [(0, count) for count in missing], mode="constant" if exact else "edge")


def _encode(array: LevelArray, chunk: Pixels | None) -> bytes | None:
    if chunk is None:
        return None
    chunk = np.ascontiguousarray(chunk)
    # Faster than any(), which converts to bool first.
    blank = (chunk == array.fill).all() if array.fill else not chunk.max()
    return None if blank else array.encoding.encode(chunk)
