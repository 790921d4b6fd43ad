"""Owns the source pixels of inference: reads them ahead in threads, uploads and buffers them once.

A *unit* is read at a time: one row of chunks, so that each chunk is decoded only once, without the
chunks that no predicted tile needs.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.errors import WsiSegError
from wsi_seg.geometry import Region
from wsi_seg.inference.plan import UNIT_ROWS, SlidePlan
from wsi_seg.inference.resample import Resampler
from wsi_seg.inference.transfer import Budget, Transfers, copy_to_device
from wsi_seg.reading.readable import Readable
from wsi_seg.store.cache import shared_pool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """A rectangle of the level that cannot be decoded, and the reason."""

    rows: range
    columns: range
    reason: str


@dataclass(slots=True, eq=False)
class Unit:
    """Rows that are read at a time, filled by several threads.

    Parameters
    ----------
    rows, columns
        Pixel rows and columns of the level.
    parts
        Column ranges to read; other columns of ``pixels`` stay uninitialized.
    pixels
        ``(len(rows), len(columns), C)`` uint8; None until a buffer is assigned.
    reads
        One for each part.
    damage
        Chunks that could not be decoded.
    """

    rows: range
    columns: range
    parts: tuple[range, ...]
    pixels: torch.Tensor | None = None
    reads: list[Future[None]] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    def nbytes(self, channels: int) -> int:
        """Size of ``pixels`` in bytes."""
        return len(self.rows) * len(self.columns) * channels


class SourceRows:
    """Source pixels that some rows of tiles need.

    Parameters
    ----------
    image, plan
        Image to read, and the grid of tiles.
    rows
        Rows of tiles, ascending.
    """

    def __init__(self, image: Readable, plan: SlidePlan, rows: Sequence[int]) -> None:
        self.image, self.plan = image, plan
        self.rows = [row for row in rows if plan.keep[row].any()]
        self.columns = plan.columns_for(self.rows)
        inside = range(self.columns.start, min(self.columns.stop, plan.extent.width))
        self.resampler = Resampler(plan.source, plan.extent, inside) if plan.resampled else None
        self._chunk = plan.chunk
        self.source_columns = inside if self.resampler is None else self.resampler.source_columns

    def source_rows(self, row: int) -> range:
        """Return the source pixel rows that a row of tiles needs."""
        y = self.plan.ys[row]
        wanted = range(y, min(y + self.plan.tile_px, self.plan.extent.height))
        return wanted if self.resampler is None else self.resampler.rows_under(wanted)

    def source_columns_of(self, tile: int) -> range:
        """Return the source pixel columns that a column of tiles needs."""
        x = self.plan.xs[tile]
        wanted = range(x, min(x + self.plan.tile_px, self.plan.extent.width))
        return wanted if self.resampler is None else self.resampler.columns_under(wanted)

    def units(self) -> Iterator[Unit]:
        """Yield the units to read, from top to bottom, each source row at most once."""
        height = min(self._chunk.height, UNIT_ROWS)
        needed: dict[int, NDArray[np.bool_]] = {}
        for row in self.rows:
            wanted, rows = self._chunks_under(row), self.source_rows(row)
            first = rows.start // height
            for number in [number for number in needed if number < first]:
                yield self._unit(number, height, needed.pop(number))
            for number in range(first, (rows.stop - 1) // height + 1):
                needed[number] = needed[number] | wanted if number in needed else wanted
        for number, wanted in needed.items():
            yield self._unit(number, height, wanted)

    def _chunks_under(self, row: int) -> NDArray[np.bool_]:
        """Whether tiles of a row need each column of chunks, counted from ``source_columns``."""
        width, first = self._chunk.width, self.source_columns.start // self._chunk.width
        changes = np.zeros((self.source_columns.stop - 1) // width + 2 - first, dtype=np.int64)
        kept = np.flatnonzero(self.plan.keep[row])
        spans = [self.source_columns_of(int(tile)) for tile in kept]
        np.add.at(changes, [span.start // width - first for span in spans], 1)
        np.add.at(changes, [(span.stop - 1) // width + 1 - first for span in spans], -1)
        under: NDArray[np.bool_] = changes.cumsum()[:-1] > 0
        return under

    def _unit(self, number: int, height: int, wanted: NDArray[np.bool_]) -> Unit:
        full = self.plan.source.height
        rows = range(number * height, min((number + 1) * height, full))
        first, width = self.source_columns.start // self._chunk.width, self._chunk.width
        step = max(1, self.plan.read_px // width)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
        parts = tuple(
            range(
                max(self.source_columns.start, chunks.start * width),
                min(self.source_columns.stop, chunks.stop * width),
            )
            for begin, end in (edges.reshape(-1, 2) + first).tolist()
            for chunks in _cut(range(begin, end), step)
        )
        return Unit(rows, self.source_columns, parts)

    def read(self, unit: Unit, part: range) -> None:
        """Read some columns of a unit into its pixels; record chunks that cannot be decoded."""
        level, cached = self.plan.level, self._chunk.height > UNIT_ROWS
        assert unit.pixels is not None
        out = unit.pixels.numpy()

        def fill(rows: range, columns: range) -> None:
            region = Region(
                level=level,
                y=rows.start,
                x=columns.start,
                height=len(rows),
                width=len(columns),
            )
            top, left = rows.start - unit.rows.start, columns.start - unit.columns.start
            view = out[top : top + len(rows), left : left + len(columns)]
            self.image.read(region, cached=cached, out=view)

        try:
            fill(unit.rows, part)
        except WsiSegError:  # read chunk by chunk to find the damaged ones
            for rows in _cut(unit.rows, self._chunk.height):
                for columns in _cut(part, self._chunk.width):
                    try:
                        fill(rows, columns)
                    except WsiSegError as error:
                        unit.damage.append(Damage(rows, columns, str(error)))


def _cut(span: range, size: int) -> Iterator[range]:
    """Split a range at the multiples of a size."""
    for number in range(span.start // size, (span.stop - 1) // size + 1):
        yield range(max(span.start, number * size), min(span.stop, (number + 1) * size))


class ReadAhead:
    """Reads the units of several slides ahead, in the order in which they are needed.

    Parameters
    ----------
    sources
        Pixels to read of each slide.
    transfers
        Provides buffers.
    readers
        Number of concurrent reads.
    nbytes
        Limit for the bytes of units that are being read or waiting.
    """

    def __init__(
        self, sources: Iterable[SourceRows], transfers: Transfers, *, readers: int, nbytes: int
    ) -> None:
        self._waiting = ((source, unit) for source in sources for unit in source.units())
        self._ahead: deque[tuple[Unit, int]] = deque()
        self._transfers, self._readers = transfers, readers
        self._budget = Budget(nbytes)
        self._next = next(self._waiting, None)
        self._lock = threading.Lock()
        self._reads: deque[tuple[Future[None], Callable[[], None]]] = deque()
        self._active = 0
        self._fill()

    def take(self) -> Unit:
        """Wait for the next unit and return it."""
        unit, nbytes = self._ahead[0]
        for read in unit.reads:
            read.result()
        self._ahead.popleft()  # not before: `close` waits for the other reads of a failed unit
        self._budget.give(nbytes)
        self._fill()
        return unit

    def close(self) -> None:
        """Cancel reads that have not started, and wait for the others."""
        with self._lock:
            dropped, self._reads = self._reads, deque()
        for future, _ in dropped:
            future.cancel()
        for unit, _ in self._ahead:
            for future in unit.reads:
                if not future.cancelled():
                    future.exception()

    def _fill(self) -> None:
        """Schedule more units, up to the limit of memory."""
        while self._next is not None:
            source, unit = self._next
            channels = source.plan.view.channels
            if not self._budget.try_take(nbytes := unit.nbytes(channels)):
                return
            unit.pixels = self._transfers.buffer(len(unit.rows), len(unit.columns), channels)
            for part in unit.parts:
                future: Future[None] = Future()
                unit.reads.append(future)
                self._reads.append((future, _bound(source, unit, part)))
            self._ahead.append((unit, nbytes))
            self._next = next(self._waiting, None)
            self._start()

    def _start(self) -> None:
        """Submit reads to the shared pool, up to ``readers``, so that other work can run between.

        Reads stay in the queue until a thread takes them, so `close` can cancel those that an
        interrupt kept from being submitted.
        """
        with self._lock:
            count = min(self._readers - self._active, len(self._reads))
            self._active += count
        for _ in range(count):
            shared_pool().submit(self._run)

    def _run(self) -> None:
        with self._lock:
            waiting = self._reads.popleft() if self._reads else None
        if waiting is not None:
            future, read = waiting
            try:
                read()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        with self._lock:
            self._active -= 1
        self._start()


def _bound(source: SourceRows, unit: Unit, part: range) -> Callable[[], None]:
    return lambda: source.read(unit, part)


class Band:
    """Ring buffer of source rows on the device, as high as a tile and a unit, to cut tiles from.

    Parameters
    ----------
    source
        Rows and columns to hold.
    ahead
        Provides the units, in order.
    transfers
        Uploads them.
    """

    def __init__(self, source: SourceRows, ahead: ReadAhead, transfers: Transfers) -> None:
        self.source, self._ahead, self._transfers = source, ahead, transfers
        plan, self._columns = source.plan, source.columns
        self._units = -1  # end of the source rows uploaded so far
        self._damage: list[Damage] = []
        unit_rows = plan.unit_px
        if source.resampler is not None:
            unit_rows = source.resampler.most_rows(unit_rows)
        self._height = min(plan.tile_px + unit_rows, max(plan.extent.height, plan.tile_px))
        self._ring = torch.empty(
            (self._height, len(self._columns), plan.view.channels),
            dtype=torch.uint8,
            device=transfers.device,
        )
        self._right = _mirrored(plan.extent.width, plan.tile_px, transfers.device)
        self._below = _mirrored(plan.extent.height, plan.tile_px, transfers.device)

    def advance(self, row: int) -> None:
        """Upload all source rows of a row of tiles, waiting for those that are still being read."""
        needed = self.source.source_rows(row)
        self._damage = [one for one in self._damage if one.rows.stop > needed.start]
        while self._units < needed.stop:
            unit = self._ahead.take()
            self._units = unit.rows.stop
            self._damage += unit.damage
            assert unit.pixels is not None
            fresh = self._transfers.upload(unit.pixels)
            if self.source.resampler is None:
                self._put(unit.rows.start, fresh)
            else:
                for y, rows in self.source.resampler.push(unit.rows.start, fresh):
                    self._put(y, rows)
        if self._below is not None:
            self._ring[: len(self._below)] = self._ring[self._below]

    def _put(self, y: int, rows: torch.Tensor) -> None:
        if self._right is not None:
            rows = rows[:, self._right]
        done = 0
        while done < len(rows):
            top = (y + done) % self._height
            count = min(len(rows) - done, self._height - top)
            self._ring[top : top + count].copy_(rows[done : done + count])
            done += count

    def damaged(self, row: int, tiles: NDArray[np.int64]) -> dict[int, str]:
        """Return why tiles of a row cannot be read, by column; tiles without damage are absent."""
        rows = self.source.source_rows(row)
        found: dict[int, str] = {}
        for one in sorted(self._damage, key=lambda one: (one.rows.start, one.columns.start)):
            if one.rows.start >= rows.stop or one.rows.stop <= rows.start:
                continue
            for tile in tiles.tolist():
                span = self.source.source_columns_of(tile)
                if span.start < one.columns.stop and span.stop > one.columns.start:
                    found.setdefault(tile, one.reason)
        return found

    def cut(self, row: int, starts: NDArray[np.int64], out: torch.Tensor) -> None:
        """Copy tiles of a row into a batch.

        Parameters
        ----------
        row
            Row of tiles.
        starts
            First pixel columns of the tiles, equally spaced.
        out
            Filled; ``(len(starts), tile_px, tile_px, C)`` uint8 on the device.
        """
        plan, width = self.source.plan, len(self._columns)
        tile_px, channels = plan.tile_px, plan.view.channels
        spacing = int(starts[1] - starts[0]) if len(starts) > 1 else 0
        x, done = int(starts[0]) - self._columns.start, 0
        while done < tile_px:
            top = (plan.ys[row] + done) % self._height
            count = min(tile_px - done, self._height - top)
            tiles = self._ring.as_strided(
                (len(starts), count, tile_px, channels),
                (spacing * channels, width * channels, channels, 1),
                (top * width + x) * channels,
            )
            out[:, done : done + count].copy_(tiles)
            done += count


def _mirrored(length: int, tile_px: int, device: torch.device) -> torch.Tensor | None:
    """Return indices that pad a short axis to a tile by mirroring; None for a longer axis."""
    if length >= tile_px:
        return None
    places = np.pad(np.arange(length), (0, tile_px - length), mode="reflect")
    return copy_to_device(places, device)
