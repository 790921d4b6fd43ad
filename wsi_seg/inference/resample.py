"""Owns resampling in inference: source rows to the size the model sees, and results back.

The model sees the area means of `reading.resample.read_image`, computed on the device in float32
from integers below 2^24, so a pixel has the same value on every device and in every block of rows.
Results are scaled back with linear interpolation on the host, where strips are written.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.inference.transfer import copy_to_device
from wsi_seg.reading.resample import COLUMN_SCALE, ROW_SCALE, Taps, area_taps
from wsi_seg.store.cache import pool_map

# Values to sum at a time.
_BLOCK = {"cpu": 2**19, "cuda": 2**25}
# Pixels that a thread scales back at a time.
_RESTORED = 2**18


class Resampler:
    """Resamples source rows that arrive from top to bottom.

    Parameters
    ----------
    full, small
        Size of the level that is read, and of the output; either can be the larger one.
    columns
        Output columns to compute.
    """

    def __init__(self, full: Extent, small: Extent, columns: range) -> None:
        self._full, self._small, self._columns = full, small, columns
        self._down = area_taps(0, small.height, full=full.height, small=small.height)
        self._across = area_taps(0, small.width, full=full.width, small=small.width)
        self.source_columns = self.columns_under(columns)
        self._kept: tuple[int, torch.Tensor] | None = None  # rows that later output rows need
        self._next = 0

    def rows_under(self, rows: range) -> range:
        """Return the source rows that some output rows are computed from."""
        return _under(self._down, rows)

    def columns_under(self, columns: range) -> range:
        """Return the source columns that some output columns are computed from."""
        return _under(self._across, columns)

    def most_rows(self, count: int) -> int:
        """Return the largest number of output rows that ``count`` source rows complete."""
        count += self._down.count + 1  # kept rows
        return -(-count * self._small.height // self._full.height) + 2

    def push(self, y: int, rows: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Add source rows; yield the output rows that are complete now.

        Parameters
        ----------
        y
            First row; if it does not continue the previous rows, those are discarded.
        rows
            ``(n, len(source_columns), C)`` uint8.

        Yields
        ------
        y : int
            First output row of a block.
        block : torch.Tensor
            ``(rows, len(columns), C)`` uint8.
        """
        if self._kept is not None and self._kept[0] + len(self._kept[1]) == y:
            y, rows = self._kept[0], torch.cat([self._kept[1], rows])
        else:
            # First output row with all source rows present.
            self._next = int(np.searchsorted(self._down.pixels[:, 0], y))
        after = int(np.searchsorted(self._down.pixels[:, -1], y + len(rows)))
        block = max(1, _BLOCK[rows.device.type] // rows[0].numel())
        for top in range(self._next, after, block):
            bottom = min(top + block, after)
            yield top, self._resampled(rows, y, range(top, bottom))
        self._next = max(self._next, after)
        if self._next < self._small.height:
            first = int(self._down.pixels[self._next, 0])
            self._kept = (max(first, y), rows[max(first - y, 0) :].clone())

    def _resampled(self, rows: torch.Tensor, y: int, wanted: range) -> torch.Tensor:
        chosen = slice(wanted.start, wanted.stop)
        down = Taps(self._down.pixels[chosen] - y, self._down.weights[chosen])
        tall = _summed(rows, down, 0).mul_(ROW_SCALE).round_()
        chosen = slice(self._columns.start, self._columns.stop)
        first = self.source_columns.start
        across = Taps(self._across.pixels[chosen] - first, self._across.weights[chosen])
        return _summed(tall, across, 1).mul_(COLUMN_SCALE).round_().to(torch.uint8)


def _under(taps: Taps, wanted: range) -> range:
    return range(int(taps.pixels[wanted.start, 0]), int(taps.pixels[wanted.stop - 1, -1]) + 1)


def _summed(values: torch.Tensor, taps: Taps, axis: int) -> torch.Tensor:
    """Weighted sums along an axis, float32."""
    shape = [1, 1, 1]
    shape[axis] = len(taps.pixels)
    total: torch.Tensor | None = None
    for tap in range(taps.count):
        places, weights = taps.pixels[:, tap], taps.weights[:, tap].copy()
        weight = copy_to_device(weights, values.device).reshape(shape)
        part = _select(values, places, axis)
        total = part * weight if total is None else total.addcmul_(part.float(), weight)
    assert total is not None
    return total


def _select(values: torch.Tensor, places: np.ndarray, axis: int) -> torch.Tensor:
    """Select indices of an axis; returns a view if they are equally spaced."""
    steps = np.diff(places)
    if len(steps) == 0 or (steps[0] > 0 and (steps == steps[0]).all()):
        step = int(steps[0]) if len(steps) else 1
        chosen = [slice(None)] * 3
        chosen[axis] = slice(int(places[0]), int(places[-1]) + 1, step)
        return values[tuple(chosen)]
    return values.index_select(axis, copy_to_device(places.copy(), values.device))


def restore(
    rows_of: Callable[[range], NDArray[np.uint8]], native: Extent, rows: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Scale the result of a resized slide back to the slide's own size, strip by strip.

    Parameters
    ----------
    rows_of
        Returns some rows at the slide's own size, see `resized`; called from several threads.
    native
        Size of the slide.
    rows
        Rows per strip.

    Yields
    ------
    y : int
        First row of a strip.
    strip : NDArray[np.uint8]
        ``(rows, native.width, C)`` uint8; the last one can have fewer rows.
    """
    step = max(1, _RESTORED // native.width)
    for wanted in native.strips(rows):
        tops = range(wanted.y, wanted.y_end, step)
        parts = [range(top, min(top + step, wanted.y_end)) for top in tops]
        yield wanted.y, np.concatenate(pool_map(rows_of, parts))


def rows_under(wanted: range, *, small: int, full: int) -> range:
    """Return the rows of an image of height ``small`` that `resized` needs for rows of ``full``."""
    above, below, _ = _between(np.arange(wanted.start, wanted.stop), small, full)
    return range(int(above[0]), int(below[-1]) + 1)


def resized(
    part: NDArray[np.uint8], top: int, wanted: range, *, small: Extent, full: Extent
) -> NDArray[np.uint8]:
    """Resize rows of an image with linear interpolation between pixel centres.

    Parameters
    ----------
    part
        ``(h, small.width, C)`` uint8: rows of the image that include those of `rows_under`.
    top
        First row of ``part`` in the image.
    wanted
        Rows of the result.
    small, full
        Size of the image, and of the resized image.

    Returns
    -------
    NDArray[np.uint8]
        ``(len(wanted), full.width, C)`` uint8, rounded half to even.
    """
    left, right, across = _between(np.arange(full.width), small.width, full.width)
    above, below, down = _between(np.asarray(wanted), small.height, full.height)
    tall = _mixed(part[above - top], part[below - top], down[:, None, None])
    wide = _mixed(tall.take(left, 1), tall.take(right, 1), across[None, :, None])
    return np.rint(wide).astype(np.uint8)


def _between(
    wanted: NDArray[np.int64], small: int, full: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Source pixels before and after each wanted pixel, and the weight of the latter.

    Beyond the first and the last centre, the border pixel is repeated.
    """
    place = ((wanted + 0.5) * (small / full) - 0.5).clip(0, small - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, small - 1), (place - before).astype(np.float32)


def _mixed(
    first: NDArray[np.generic], second: NDArray[np.generic], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    start = first.astype(np.float32)
    mixed: NDArray[np.float32] = start + (second.astype(np.float32) - start) * share
    return mixed
