"""Owns computing coarser levels, from rows of level 0 in memory or from a level on disk."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.files.object_folder import Objects, for_each
from wsi_seg.geometry import Extent, Region
from wsi_seg.progress import Progress
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.chunks import read_region
from wsi_seg.store.multiscale import open_multiscale
from wsi_seg.store.reduction import cell_edges, halve, is_half, reduced
from wsi_seg.store.writer import shard_checksums, write_rows

Pixels = NDArray[np.uint8]
ShardRow = tuple[int, int]

# Width of the blocks in which a coarser level is computed from one on disk.
_BLOCK_PX = 1024


@dataclass(slots=True)
class Written:
    """Parts of coarser levels that were written.

    Parameters
    ----------
    rows
        Level, and row in its shard grid.
    checksums
        Checksum of each shard file, by its path inside the group; shards of only 0 have no file.
    """

    rows: list[ShardRow] = field(default_factory=list)
    checksums: dict[str, int] = field(default_factory=dict)


class CoarserLevels:
    """Computes and writes levels 1 and up from rows of level 0 in memory.

    Stops at the first level that is not half the finer one, or whose finer one has lossy encoding;
    `fill_pyramid` writes the remaining levels, with the same result. Holds one row of shards of
    each level in memory. Not thread-safe.

    Parameters
    ----------
    group
        Group created by `create_multiscale`.
    nearest
        Whether to use nearest-neighbour sampling (labels), not the area mean (images).

    Attributes
    ----------
    finest
        Level 0.
    """

    def __init__(self, group: Path, *, nearest: bool) -> None:
        arrays = open_multiscale(group).arrays
        self.finest = arrays[0]
        count = 1
        while count < len(arrays) and _follows(arrays[count - 1], arrays[count]):
            count += 1
        self._first: _Level | None = None
        for number in range(count - 1, 0, -1):
            self._first = _Level(
                arrays[number],
                arrays[number - 1].extent,
                number=number,
                nearest=nearest,
                coarser=self._first,
            )

    def put(self, y: int, rows: Pixels, objects: Objects | None = None) -> Written:
        """Add rows of level 0, and write each row of shards that they complete.

        Parameters
        ----------
        y
            First row. If it does not continue the previous rows, buffered rows are dropped: a row
            of shards is only written if all of its rows are added without a gap.
        rows
            ``(H, W, C)``, or ``(H, W)`` for a label, uint8; full width, any height.
        objects
            See `write_rows`.

        Raises
        ------
        StoreError
            If ``rows`` have another width, channels or dtype, or extend beyond the level.
        OutputError
            If a shard cannot be written.
        """
        array = self.finest
        shape = array.shape(len(rows), array.extent.width)
        inside = 0 <= y <= array.extent.height - len(rows)
        if not inside or rows.shape != shape or rows.dtype != np.uint8:
            raise StoreError(
                f"{array.path}: got rows {rows.shape} {rows.dtype} at y={y}; expected whole rows "
                f"of {array.shape(array.extent.height, array.extent.width)} uint8"
            )
        written = Written()
        if self._first is not None:
            self._first.put(y, rows, written, objects)
        return written


def _follows(source: LevelArray, target: LevelArray) -> bool:
    """Return whether a level can be computed from the rows of the finer one before encoding."""
    return is_half(source.extent, target.extent) and source.encoding.exact


class _Level:
    """One coarser level, computed one row of shards at a time."""

    def __init__(
        self,
        array: LevelArray,
        source: Extent,
        *,
        number: int,
        nearest: bool,
        coarser: "_Level | None",
    ) -> None:
        self._array, self._source, self._number = array, source, number
        self._nearest, self._coarser = nearest, coarser
        height = min(array.shard.height, array.extent.height)
        self._rows = np.empty(array.shape(height, array.extent.width), dtype=np.uint8)
        self._odd: Pixels | None = None  # last row of the finer level, until the next one is added
        self._next = -1  # next row expected of the finer level
        self._begin = 0  # first row of this level after the last gap

    def put(self, y: int, rows: Pixels, written: Written, objects: Objects | None) -> None:
        """Add rows of the finer level, and pass the halved rows on to the coarser level."""
        for top, part in self._halves(y, rows):
            if self._coarser is not None:
                self._coarser.put(top, part, written, objects)
            self._write(top + len(part), written, objects)

    def _halves(self, y: int, rows: Pixels) -> Iterator[tuple[int, Pixels]]:
        """Yield halved rows, in parts within one row of shards, each with its first row."""
        if y != self._next:
            self._odd, self._begin = None, -(-y // 2)
            if y % 2:  # the other row of its pair is missing
                y, rows = y + 1, rows[1:]
        self._next = y + len(rows)
        if self._odd is not None and len(rows):
            pair = np.concatenate([self._odd, rows[:1]])
            self._odd = None
            yield from self._placed(y - 1, pair)
            y, rows = y + 1, rows[1:]
        if len(rows) % 2 and self._next < self._source.height:
            self._odd, rows = rows[-1:].copy(), rows[:-1]
        yield from self._placed(y, rows)

    def _placed(self, y: int, rows: Pixels) -> Iterator[tuple[int, Pixels]]:
        """Halve pairs of finer rows into the buffer."""
        height, top = self._array.shard.height, y // 2
        while len(rows):
            begin = top % height
            pairs = rows[: 2 * (height - begin)]
            part = self._rows[begin : begin - (-len(pairs) // 2)]
            halve(pairs, part, nearest=self._nearest)
            yield top, part
            top, rows = top + len(part), rows[len(pairs) :]

    def _write(self, end: int, written: Written, objects: Objects | None) -> None:
        """Write the row of shards that ends here, if there is one and it has no gap."""
        height = self._array.shard.height
        row = (end - 1) // height
        y = row * height
        if y < self._begin or (end % height and end < self._array.extent.height):
            return
        checksums = write_rows(self._array, y, self._rows[: end - y], objects)
        written.rows.append((self._number, row))
        written.checksums |= shard_checksums(self._array, y, checksums)


def fill_pyramid(
    path: Path,
    *,
    nearest: bool,
    progress: Progress,
    done: Collection[ShardRow] = frozenset(),
) -> dict[str, int]:
    """Compute levels 1 and up, each from the next finer level, strip by strip.

    Parameters
    ----------
    path
        Group whose level 0 is complete.
    nearest
        Whether to use nearest-neighbour sampling (labels), not the area mean (images).
    progress
        Advanced by megapixels written.
    done
        Rows of shards that `CoarserLevels` has written: level, and row in its shard grid.

    Returns
    -------
    dict[str, int]
        Checksums of the shards written, by their paths inside the group.
    """
    return fill_levels(open_multiscale(path).arrays, nearest=nearest, progress=progress, done=done)


def fill_levels(
    arrays: Sequence[LevelArray],
    *,
    nearest: bool,
    progress: Progress,
    done: Collection[ShardRow] = frozenset(),
) -> dict[str, int]:
    """Compute levels 1 and up of an open image; see `fill_pyramid`."""
    arrays = for_each(arrays[0].path, arrays.__getitem__, range(len(arrays)))  # reads metadata
    left = [
        (number, row)
        for number in range(1, len(arrays))
        for row in range(-(-arrays[number].extent.height // arrays[number].shard.height))
        if (number, row) not in done
    ]
    areas = [_strip_area(arrays[number], row) for number, row in left]
    progress.start("pyramid", sum(areas) / 1e6, "Mpx")
    checksums: dict[str, int] = {}
    for (number, row), area in zip(left, areas, strict=True):
        target = arrays[number]
        y = row * target.shard.height
        rows = reduced_strip(arrays[number - 1], target, y, nearest=nearest)
        checksums |= shard_checksums(target, y, write_rows(target, y, rows))
        progress.advance(area / 1e6)
    progress.finish()
    return checksums


def _strip_area(array: LevelArray, row: int) -> int:
    y = row * array.shard.height
    return min(array.shard.height, array.extent.height - y) * array.extent.width


def reduced_strip(source: LevelArray, target: LevelArray, y: int, *, nearest: bool) -> Pixels:
    """Compute one strip of a level from the next finer level.

    Parameters
    ----------
    source, target
        The finer level, which must be complete, and the level to compute.
    y
        First row of the strip.
    nearest
        Whether to use nearest-neighbour sampling, not the area mean.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, C)`` or ``(H, W)``.
    """
    y_end = min(y + target.shard.height, target.extent.height)
    out = np.empty(target.shape(y_end - y, target.extent.width), dtype=np.uint8)
    # Whole chunks, so that each is decoded once; few, as sums take several times their memory.
    step = target.chunk.width * max(1, _BLOCK_PX // target.chunk.width)
    for x in range(0, target.extent.width, step):
        part = out[:, x : x + step]
        _reduce_block(source, target, (y, x), part, nearest=nearest)
    return out


def _reduce_block(
    source: LevelArray, target: LevelArray, place: tuple[int, int], out: Pixels, *, nearest: bool
) -> None:
    """Compute the block of a level at (row, column) from the finer level, into ``out``."""
    full, small, (height, width) = source.extent, target.extent, out.shape[:2]
    y_edges = cell_edges((place[0], place[0] + height), full.height, small.height)
    x_edges = cell_edges((place[1], place[1] + width), full.width, small.width)
    y, x = int(y_edges[0]), int(x_edges[0])
    region = Region(level=0, y=y, x=x, height=int(y_edges[-1]) - y, width=int(x_edges[-1]) - x)
    pixels = read_region(source, region, cached=False)
    if is_half(full, small):
        halve(pixels, out, nearest=nearest)
    else:
        out[...] = reduced(pixels, y_edges - y, x_edges - x, nearest=nearest)
