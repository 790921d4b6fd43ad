"""Owns reading regions: looks up chunks in shards, decodes and copies them into one array.

Safe with threads, processes and forks: no file stays open between two reads.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsi_seg.cores import available_cores
from wsi_seg.errors import StoreError
from wsi_seg.files.object_path import REQUESTS, object_path
from wsi_seg.geometry import Region
from wsi_seg.reading.readable import destination
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.cache import ChunkCache, shared_cache, shared_pool
from wsi_seg.store.names import OWN
from wsi_seg.store.shards import MISSING, Shard

Pixels = NDArray[np.uint8]
Run = Sequence[tuple[int, int]]

# Chunks read without the thread pool: at most a region of two chunks per side, not aligned.
_ALONE = 9
# Chunks per task, all from one shard, which is opened once.
_RUN = 4
# The same in an object store, fetched with one request.
_REMOTE_RUN = 64
# Memory for the shard indices of an uncached read.
_INDEX_BYTES = 2**20


def read_region(
    array: LevelArray, region: Region, *, cached: bool = True, out: Pixels | None = None
) -> Pixels:
    """Read a region of a level.

    Parameters
    ----------
    array
        Level to read.
    region
        Rectangle inside the level.
    cached
        Whether to cache decoded chunks; pass False while the array is being written.
    out
        Array to fill instead of a new one; see `destination`.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, C)``, or ``(H, W)`` for a label; missing chunks have the array's fill value. Not
        shared with the cache.

    Raises
    ------
    StoreError
        If a shard is damaged, a chunk cannot be decoded (the message gives its position), or
        ``out`` has another shape or dtype.
    """
    filled = destination(array.shape(region.height, region.width), out)
    reading = _Reading(array, region, filled, shared_cache() if cached else None)
    if object_path(array.path) is None:
        _share_out(reading.fetch, reading.runs())
    else:
        _request(reading.fetch, reading.runs())
    return filled


class _Reading:
    """State of reading one region into an array."""

    def __init__(
        self, array: LevelArray, region: Region, out: Pixels, cache: ChunkCache | None
    ) -> None:
        self._array, self._region, self._out, self._cache = array, region, out, cache
        # In object stores an index costs a request, so it is cached, unless its shard may change.
        is_kept = object_path(array.path) is not None and OWN not in array.path.parts
        kept = shared_cache() if is_kept else ChunkCache(_INDEX_BYTES)
        self._indices = kept if cache is None else cache

    def runs(self) -> list[Run]:
        """Copy cached chunks, and return the others in groups of few chunks of one shard."""
        chunk, region = self._array.chunk, self._region
        rows, columns = self._array.grid
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in range(region.y // chunk.height, -(-region.y_end // chunk.height)):
            for column in range(region.x // chunk.width, -(-region.x_end // chunk.width)):
                kept = None if self._cache is None else self._cache.get(self._key(row, column))
                if kept is None:
                    found.setdefault((row // rows, column // columns), []).append((row, column))
                else:
                    self._paste(row, column, kept)
        length = _RUN if object_path(self._array.path) is None else _REMOTE_RUN
        return [
            places[begin : begin + length]
            for places in found.values()
            for begin in range(0, len(places), length)
        ]

    def fetch(self, run: Run) -> None:
        """Read, decode and copy chunks of one shard."""
        with _opened(self._array, *run[0]) as shard:
            spans = [_span(self._array, *place, shard, self._indices) for place in run]
            shard.fetch([span for span in spans if span is not None])
            for (row, column), span in zip(run, spans, strict=True):
                if span is None:
                    self._paste(row, column, None)
                    continue
                decode = partial(_decode, self._array, row, column, shard, span)
                key = self._key(row, column)
                pixels = decode() if self._cache is None else self._cache.get_or_make(key, decode)
                self._paste(row, column, pixels)

    def _key(self, row: int, column: int) -> tuple[object, ...]:
        return self._array.path, self._array.version, row, column

    def _paste(self, row: int, column: int, pixels: Pixels | None) -> None:
        """Copy the part of a chunk inside the region, or the fill value if it is missing."""
        chunk, region = self._array.chunk, self._region
        top, left = row * chunk.height, column * chunk.width
        y, x = max(top, region.y), max(left, region.x)
        y_end = min(top + chunk.height, region.y_end)
        x_end = min(left + chunk.width, region.x_end)
        part = self._out[y - region.y : y_end - region.y, x - region.x : x_end - region.x]
        fill = self._array.fill
        part[:] = fill if pixels is None else pixels[y - top : y_end - top, x - left : x_end - left]


def _share_out(fetch: Callable[[Run], None], runs: Sequence[Run]) -> None:
    """Fetch all runs in this thread and, if there are many chunks, in the thread pool.

    For a few chunks the pool would cost more than it gains; callers that read many small regions
    use their own threads.
    """
    if sum(len(run) for run in runs) <= _ALONE:
        for run in runs:
            fetch(run)
        return
    left = deque(runs)

    def work() -> None:
        while left:
            try:
                run = left.popleft()
            except IndexError:  # another thread took the last one
                return
            fetch(run)

    count = min(len(runs), available_cores()) - 1
    helpers = [shared_pool().submit(work) for _ in range(count)]
    try:
        work()
    finally:
        # Tasks that have not started have nothing to do.
        running = [helper for helper in helpers if not helper.cancel()]
        wait(running)
    for helper in running:
        helper.result()


def _request(fetch: Callable[[Run], None], runs: Sequence[Run]) -> None:
    """Fetch all runs from an object store, with more threads than cores to hide latency."""
    if len(runs) < 2:
        for run in runs:
            fetch(run)
        return
    with ThreadPoolExecutor(min(REQUESTS, len(runs))) as threads:
        list(threads.map(fetch, runs))


def read_encoded(array: LevelArray, row: int, column: int, cache: ChunkCache) -> bytes | None:
    """Return the encoded bytes of one chunk, or None for a missing chunk."""
    with _opened(array, row, column) as shard:
        span = _span(array, row, column, shard, cache)
        return None if span is None else shard.read(*span)


def _opened(array: LevelArray, row: int, column: int) -> Shard:
    """Return the shard that contains a chunk."""
    rows, columns = array.grid
    return Shard(array.shard_path(row // rows, column // columns), rows * columns)


def _span(
    array: LevelArray, row: int, column: int, shard: Shard, indices: ChunkCache
) -> tuple[int, int] | None:
    """Return offset and size in bytes of a chunk in its shard; None if it is missing."""
    rows, columns = array.grid

    def load() -> Pixels:
        index = shard.index()
        packed = np.empty(0, dtype=np.uint64) if index is None else index
        return packed.view(np.uint8)

    key = (array.path, array.version, "shard", row // rows, column // columns)
    packed = indices.get_or_make(key, load)
    if not packed.size:
        return None
    number = (row % rows) * columns + column % columns
    offset, nbytes = packed.view(np.uint64)[number].tolist()
    return None if offset == MISSING else (offset, nbytes)


def _decode(
    array: LevelArray, row: int, column: int, shard: Shard, span: tuple[int, int]
) -> Pixels:
    data = shard.read(*span)
    try:
        return array.encoding.decode(data, array.chunk_shape)
    except StoreError as error:
        raise StoreError(
            f"{array.path}: chunk row={row} column={column} "
            f"(y={row * array.chunk.height}, x={column * array.chunk.width}) is damaged: {error}"
        ) from error
