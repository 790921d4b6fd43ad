"""Owns the fast region reader: shard index, chunk, decoded px, into one array of the caller.

Threads, processes and forks may read at will: nothing is kept open between two reads.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Region
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.cache import ChunkCache, shared_cache, shared_pool
from wsi_seg.store.shards import MISSING, read_chunk, read_index

Pixels = NDArray[np.uint8]

# Chunks that a read fetches without help: a window no larger than two chunks a side.
_ALONE = 9


def read_region(array: LevelArray, region: Region, *, cached: bool = True) -> Pixels:
    """Read a region that lies inside the array.

    Parameters
    ----------
    array
        Level to read.
    region
        Rectangle inside the level.
    cached
        Whether decoded chunks are kept for the next read; not while the array is being written.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, C)``, or ``(H, W)`` for a label; missing chunks are 0. The caller owns it.

    Raises
    ------
    StoreError
        If a shard is damaged or a chunk cannot be decoded; names the chunk and its place.
    """
    out = np.empty(array.shape(region.height, region.width), dtype=np.uint8)
    cache = shared_cache() if cached else ChunkCache(0)
    rows = range(region.y // array.chunk.height, -(-region.y_end // array.chunk.height))
    columns = range(region.x // array.chunk.width, -(-region.x_end // array.chunk.width))
    wanted = list(itertools.product(rows, columns))
    waiting = []
    for row, column in wanted:
        kept = cache.get((array.path, array.version, row, column))
        if kept is None:
            waiting.append((row, column))
        else:
            _paste(array, region, row, column, kept, out)

    def fetch(place: tuple[int, int]) -> None:
        row, column = place
        key = (array.path, array.version, row, column)
        pixels = cache.get_or_make(key, lambda: _decode(array, row, column, cache))
        _paste(array, region, row, column, pixels, out)

    _share_out(fetch, waiting)
    return out


def _share_out(fetch: Callable[[tuple[int, int]], None], places: Sequence[tuple[int, int]]) -> None:
    """Fetch all places, in this thread and, where there are many, in those of the pool.

    A window of a few chunks is fetched here alone: whoever wants many windows reads them in
    threads of their own, and handing chunks over would cost more than it gains.
    """
    left = deque(places)

    def work() -> None:
        while left:
            try:
                place = left.popleft()
            except IndexError:  # another thread took the last one
                return
            fetch(place)

    helpers = [shared_pool().submit(work) for _ in places[_ALONE:]]
    try:
        work()
    finally:
        # Helpers that have not begun have nothing left to do.
        wait([helper for helper in helpers if not helper.cancel()])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


def read_encoded(array: LevelArray, row: int, column: int, cache: ChunkCache) -> bytes | None:
    """Read the stream of one chunk as it lies in its shard, or None for a missing chunk."""
    rows, columns = array.grid
    place = (row // rows, column // columns)

    def load() -> Pixels:
        index = read_index(array.shard_path(*place), rows * columns)
        packed = np.empty(0, dtype=np.uint64) if index is None else index
        return packed.view(np.uint8)

    packed = cache.get_or_make((array.path, array.version, "shard", *place), load)
    if not packed.size:
        return None
    number = (row % rows) * columns + column % columns
    offset, nbytes = packed.view(np.uint64)[number].tolist()
    return None if offset == MISSING else read_chunk(array.shard_path(*place), offset, nbytes)


def _decode(array: LevelArray, row: int, column: int, cache: ChunkCache) -> Pixels:
    data = read_encoded(array, row, column, cache)
    if data is None:
        return np.zeros(array.chunk_shape, dtype=np.uint8)
    try:
        return array.encoding.decode(data, array.chunk_shape)
    except StoreError as error:
        raise StoreError(
            f"{array.path}: chunk row={row} column={column} "
            f"(y={row * array.chunk.height}, x={column * array.chunk.width}) is damaged: {error}"
        ) from error


def _paste(
    array: LevelArray, region: Region, row: int, column: int, pixels: Pixels, out: Pixels
) -> None:
    """Copy the part of a chunk that lies in the region."""
    top, left = row * array.chunk.height, column * array.chunk.width
    y, x = max(top, region.y), max(left, region.x)
    y_end = min(top + array.chunk.height, region.y_end)
    x_end = min(left + array.chunk.width, region.x_end)
    out[y - region.y : y_end - region.y, x - region.x : x_end - region.x] = pixels[
        y - top : y_end - top, x - left : x_end - left
    ]
