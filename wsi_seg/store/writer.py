"""Owns writing px: strips of shards in zstd, coarser levels from finer ones, the last rename."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial as bind
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.geometry import Region
from wsi_seg.progress import Progress
from wsi_seg.store.arrays import LevelArray, read_level_array
from wsi_seg.store.cache import shared_pool
from wsi_seg.store.chunks import read_region
from wsi_seg.store.digests import write_digests
from wsi_seg.store.layout import PARTIAL, list_label, unlist_label
from wsi_seg.store.multiscale import open_multiscale
from wsi_seg.store.remote import require_local
from wsi_seg.store.shards import write_shard

Pixels = NDArray[np.uint8]

# Side of the blocks in which a coarser level is computed.
_BLOCK_PX = 1024


def strip_rows(path: Path, level: int = 0) -> int:
    """Rows of one strip, which is the height of a shard of this level."""
    return read_level_array(path / str(level)).shard.height


def write_strip(path: Path, level: int, y: int, rows: Pixels) -> None:
    """Write one strip: every shard of these rows, each whole or not at all.

    Parameters
    ----------
    path
        Group that `create_multiscale` made.
    level
        Level to write.
    y
        First row, a multiple of `strip_rows`.
    rows
        ``(H, W, C)``, or ``(H, W)`` for a label, uint8; full width, and `strip_rows` high or up
        to the end of the level. Chunks that are all 0 are left out.

    Raises
    ------
    StoreError
        If ``rows`` do not fit there.
    OutputError
        If they cannot be written.
    """
    array = read_level_array(path / str(level))
    height = min(array.shard.height, array.extent.height - y)
    shape = array.shape(max(0, height), array.extent.width)
    if y % array.shard.height or rows.shape != shape or rows.dtype != np.uint8:
        raise StoreError(
            f"{array.path}: got rows {rows.shape} {rows.dtype} at y={y}; expected {shape} uint8 "
            f"at a multiple of {array.shard.height}"
        )
    write_rows(array, y, rows)


def write_rows(array: LevelArray, y: int, rows: Pixels) -> list[int | None]:
    """Write one strip of a level whose metadata are at hand; see `write_strip`.

    Returns
    -------
    list[int or None]
        crc32c of each shard, left to right; None for one that is all 0.
    """
    checksums = []
    for column in range(-(-array.extent.width // array.shard.width)):
        x = column * array.shard.width
        part = rows[:, x : x + array.shard.width]
        chunks = shared_pool().map(bind(_encode, array), _cut(array, part))
        checksums.append(
            write_shard(array.shard_path(y // array.shard.height, column), list(chunks))
        )
    return checksums


def fill_pyramid(path: Path, *, nearest: bool, progress: Progress) -> None:
    """Compute levels 1 and up, each from the level above it, strip by strip.

    Parameters
    ----------
    path
        Group whose level 0 is complete.
    nearest
        Take the px nearest to each centre (labels), not the area mean (images).
    progress
        Told about finished Mpx.
    """
    image = open_multiscale(path)
    areas = [array.extent.area / 1e6 for array in image.arrays[1:]]
    progress.start("pyramid", sum(areas), "Mpx")
    for source, target in zip(image.arrays, image.arrays[1:], strict=False):
        for y in range(0, target.extent.height, target.shard.height):
            write_rows(target, y, reduced_strip(source, target, y, nearest=nearest))
            height = min(target.shard.height, target.extent.height - y)
            progress.advance(height * target.extent.width / 1e6)
    progress.finish()


def finish(
    partial: Path, final: Path, *, replace: bool = False, known: Mapping[str, int] | None = None
) -> None:
    """Note the digests of finished work, and give it its final name in one step.

    Parameters
    ----------
    partial, final
        The finished group, and its name to be.
    replace
        Whether a group of that name is replaced; it is removed only after it was renamed too.
    known
        See `write_digests`.

    Raises
    ------
    OutputError
        If it cannot be renamed, for example because the final name is taken.
    """
    _sweep(partial)
    write_digests(partial, known)
    try:
        for folder, _, files in os.walk(partial):
            for name in files:
                if "." in name:  # shards, whose names are numbers, were synced when written
                    _sync(Path(folder) / name)
            _sync(Path(folder))
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.parent.name == "labels":
            list_label(final.parent, final.name)  # before the rename: a kill leaves no orphan
        old = partial.with_name(f".{final.name}.old")  # no slide's name begins with a dot
        if replace and final.exists():
            discard(old)
            final.rename(old)
        partial.rename(final)
        _sync(final.parent)
        if replace:
            discard(old)
    except OSError as error:
        raise OutputError(
            f"cannot rename {partial} to {final}: {error.strerror or error}"
        ) from error


def tidy(group: Path) -> None:
    """Remove the group's folder for unfinished work if nothing is left in it.

    Not done by `finish`: another slide may be about to begin there.
    """
    with contextlib.suppress(OSError):
        (group / PARTIAL).rmdir()


def discard(path: Path) -> None:
    """Remove a group and everything in it, if it exists.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    require_local(path)
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error


def _sweep(group: Path) -> None:
    """Remove files that a kill left under the temporary names of zarr-python's writes and ours."""
    for folder, _, files in os.walk(group):
        for name in files:
            if name.endswith((".tmp", ".partial")):
                (Path(folder) / name).unlink(missing_ok=True)


def discard_label(group: Path, name: str) -> None:
    """Remove a label of a slide, if it exists.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    unlist_label(group / "labels", name)  # first: after a kill nobody reads what is left of it
    discard(group / "labels" / name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut(array: LevelArray, part: Pixels) -> Iterator[Pixels | None]:
    """Chunks of one shard in C order, padded; None where the level has none."""
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
    """Fill a chunk at the border of its level: with 0, or so that a lossy codec does not ring."""
    missing = [full - have for full, have in zip(array.chunk_shape, chunk.shape, strict=True)]
    exact = array.encoding.exact
    return np.pad(chunk, [(0, count) for count in missing], mode="constant" if exact else "edge")


def _encode(array: LevelArray, chunk: Pixels | None) -> bytes | None:
    if chunk is None or not chunk.any():
        return None
    return array.encoding.encode(chunk)


def reduced_strip(source: LevelArray, target: LevelArray, y: int, *, nearest: bool) -> Pixels:
    """Compute one strip of a level from a finer level.

    Parameters
    ----------
    source, target
        The finer level, complete, and the level to compute.
    y
        First row of the strip.
    nearest
        Take the px nearest to each centre, not the area mean.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, C)`` or ``(H, W)``.
    """
    y_end = min(y + target.shard.height, target.extent.height)
    out = np.empty(target.shape(y_end - y, target.extent.width), dtype=np.uint8)
    # Whole chunks, so that each is decoded once; few, because sums take several times their bytes.
    step = target.chunk.width * max(1, _BLOCK_PX // target.chunk.width)
    for x in range(0, target.extent.width, step):
        x_end = min(x + step, target.extent.width)
        out[:, x:x_end] = _reduced_block(source, target, (y, y_end), (x, x_end), nearest=nearest)
    return out


def _reduced_block(
    source: LevelArray,
    target: LevelArray,
    rows: tuple[int, int],
    columns: tuple[int, int],
    *,
    nearest: bool,
) -> Pixels:
    full, small = source.extent, target.extent
    y_edges = _edges(rows, full.height, small.height)
    x_edges = _edges(columns, full.width, small.width)
    y, x = int(y_edges[0]), int(x_edges[0])
    region = Region(level=0, y=y, x=x, height=int(y_edges[-1]) - y, width=int(x_edges[-1]) - x)
    pixels = read_region(source, region, cached=False)
    if nearest:
        centre_y = (y_edges[:-1] + y_edges[1:]) // 2 - y
        centre_x = (x_edges[:-1] + x_edges[1:]) // 2 - x
        taken: Pixels = pixels[centre_y][:, centre_x]
        return taken
    return area_mean(pixels, y_edges - y, x_edges - x)


def _edges(span: tuple[int, int], full: int, small: int) -> NDArray[np.int64]:
    """Source px where each target px of the span begins, and where the last one ends."""
    places = np.arange(span[0], span[1] + 1, dtype=np.int64)
    if small == -(-full // 2):
        return np.minimum(places * 2, full)
    return places * full // small


def area_mean(pixels: Pixels, y_edges: NDArray[np.int64], x_edges: NDArray[np.int64]) -> Pixels:
    """Mean of the px of each cell, rounded half up.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)`` uint8.
    y_edges, x_edges
        Ascending px borders of the cells, first 0, last H and W.

    Returns
    -------
    NDArray[np.uint8]
        One px for each cell.
    """
    counts = np.diff(y_edges)[:, None] * np.diff(x_edges)[None, :]
    # 256 px of 255, and half their number to round, still fit in 16 bits.
    dtype = np.uint16 if counts.max(initial=0) <= 256 else np.uint32
    sums = np.add.reduceat(pixels, y_edges[:-1], axis=0, dtype=dtype)
    sums = np.add.reduceat(sums, x_edges[:-1], axis=1, dtype=dtype)
    counts = counts.astype(dtype)
    if pixels.ndim == 3:
        counts = counts[:, :, None]
    means: Pixels = ((sums + counts // 2) // counts).astype(np.uint8)
    return means
