"""Owns the rows in memory: accumulate windows, emit rows that no later window touches."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.geometry import Region
from wsi_seg.infer.plan import SlidePlan
from wsi_seg.infer.windows import PROBABILITY_STEPS

StripSink = Callable[[int, NDArray[np.uint8]], None]

# Sums that are divided at a time: a slide may be 100,000 px wide.
_BLOCK = 2**20

# Columns of an earlier pass that are read at a time.
_GROUND_PX = 4096

_HALF = PROBABILITY_STEPS // 255 // 2


class Band:
    """Accumulator of one slide: as many rows as a window is high, whatever the slide's height.

    Windows must arrive row by row; within a row, in any order. The weight sum needs no map: over
    the kept windows it is, for every window row, an outer product of two vectors of whole numbers.

    Parameters
    ----------
    plan
        The slide's plan.
    strips
        Indices of the strips to produce.
    channels
        Number of classes.
    device
        Where the sums are kept.
    sink
        Called with ``(strip index, uint8 (rows, width, channels))`` for every strip, in order.
    """

    def __init__(
        self,
        plan: SlidePlan,
        strips: frozenset[int],
        *,
        channels: int,
        device: torch.device,
        sink: StripSink,
    ) -> None:
        self._plan = plan
        self._rows = plan.rows_for(strips)
        self._position = 0
        self._width = max(plan.extent.width, plan.tile_px)
        self._sums = torch.zeros(
            (channels, plan.tile_px, self._width), dtype=torch.int32, device=device
        )
        self._column_sums: dict[int, NDArray[np.int32]] = {}
        self._block = max(1, _BLOCK // (self._width * channels))
        self._along_y, self._along_x = plan.row_weights, plan.column_weights
        self._row_weights = torch.from_numpy(self._along_y).to(device)
        self._column_weights = torch.from_numpy(self._along_x).to(device)
        self._assembler = _StripAssembler(plan, strips, channels, sink)
        self._enter_row()

    def add(self, row: int, column: int, prediction: torch.Tensor) -> None:
        """Add one window.

        Parameters
        ----------
        row, column
            Place in the plan's grid.
        prediction
            ``(channels, tile_px, tile_px)`` int32, 0 to `PROBABILITY_STEPS`.
        """
        self._advance_to(row)
        x = self._plan.xs[column]
        weight = self._row_weights[row][:, None] * self._column_weights[column][None, :]
        self._sums[:, :, x : x + self._plan.tile_px] += prediction * weight
        sums = self._column_sums.setdefault(row, np.zeros(self._width, dtype=np.int32))
        sums[x : x + self._plan.tile_px] += self._along_x[column]

    def finish(self) -> None:
        """Emit all rows that are left."""
        while self._position < len(self._rows):
            self._emit_row()

    def _advance_to(self, row: int) -> None:
        while self._rows[self._position] < row:
            self._emit_row()

    def _emit_row(self) -> None:
        """Emit the rows above the next window row, then shift the sums up to it."""
        plan = self._plan
        top = plan.ys[self._rows[self._position]]
        self._position += 1
        if self._position < len(self._rows):
            shift = min(plan.ys[self._rows[self._position]] - top, plan.tile_px)
        else:
            shift = plan.tile_px
        for first in range(0, shift, self._block):
            count = min(self._block, shift - first)
            weight = torch.from_numpy(self._weight_sum(top + first, count)).to(self._sums.device)
            self._assembler.put(top + first, self._mean(first, count, weight))
        self._drop_above(top + shift)
        # Moved up by portions that do not overlap, so that no copy of all rows is made.
        for first in range(0, plan.tile_px - shift, max(shift, 1)):
            after = min(first + shift, plan.tile_px - shift)
            self._sums[:, first:after] = self._sums[:, first + shift : after + shift]
        self._sums[:, plan.tile_px - shift :] = 0
        self._enter_row()

    def _enter_row(self) -> None:
        """Add what an earlier pass knows of the windows of the next row, all at once."""
        ground = self._plan.ground
        if ground is None or self._position == len(self._rows):
            return
        plan, row = self._plan, self._rows[self._position]
        sums = np.zeros(self._width, dtype=np.int32)
        for column in np.flatnonzero(ground.keep[row]):
            x = plan.xs[column]
            sums[x : x + plan.tile_px] += self._along_x[column]
        if not sums.any():
            return
        self._column_sums[row] = sums
        step = PROBABILITY_STEPS // 255
        y, extent = plan.ys[row], plan.extent
        height = min(plan.tile_px, extent.height - y)
        for x in range(0, extent.width, _GROUND_PX):
            width = min(_GROUND_PX, extent.width - x)
            region = Region(level=0, y=y, x=x, height=height, width=width)
            known = torch.from_numpy(ground.image.read(region)).to(self._sums.device)
            weights = torch.from_numpy(sums[x : x + width]).to(self._sums.device)
            weight = step * self._row_weights[row][:height, None] * weights
            self._sums[:, :height, x : x + width] += known.permute(2, 0, 1) * weight

    def _mean(self, first: int, count: int, weight: torch.Tensor) -> NDArray[np.uint8]:
        """Probabilities of some rows of the sums, ``(count, width, channels)``."""
        step = PROBABILITY_STEPS // 255
        sums = self._sums[:, first : first + count] + _HALF * weight
        mean = sums.div_(step * weight.clamp_(min=1), rounding_mode="floor")
        return mean.to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    def _drop_above(self, y: int) -> None:
        """Forget the column sums of window rows that end above ``y``."""
        for row in list(self._column_sums):
            if self._plan.ys[row] + self._plan.tile_px <= y:
                del self._column_sums[row]

    def _weight_sum(self, top: int, count: int) -> NDArray[np.int32]:
        """Weight sum of the rows ``[top, top + count)``, shape ``(count, width)`` int32."""
        plan = self._plan
        total = np.zeros((count, self._width), dtype=np.int32)
        for row in self._column_sums:
            offset = top - plan.ys[row]
            weights = self._along_y[row, max(0, offset) : offset + count]
            first = min(count, max(0, -offset))
            total[first : first + len(weights)] += weights[:, None] * self._column_sums[row]
        return total


class _StripAssembler:
    """Collects emitted rows into whole strips, and drops rows of strips nobody asked for."""

    def __init__(
        self, plan: SlidePlan, strips: Iterable[int], channels: int, sink: StripSink
    ) -> None:
        self._pending = [(index, *plan.strips[index]) for index in sorted(strips)]
        self._channels = channels
        self._width = plan.extent.width
        self._sink = sink
        self._buffer: NDArray[np.uint8] | None = None

    def put(self, y: int, rows: NDArray[np.uint8]) -> None:
        """Take rows ``[y, y + len(rows))`` of the level, ``(rows, width, channels)``."""
        while self._pending:
            index, top, bottom = self._pending[0]
            first, after = max(y, top), min(y + len(rows), bottom)
            if first >= after:
                return
            if self._buffer is None:
                self._buffer = np.zeros((bottom - top, self._width, self._channels), dtype=np.uint8)
            self._buffer[first - top : after - top] = rows[first - y : after - y, : self._width]
            if after < bottom:
                return
            self._sink(index, self._buffer)
            self._buffer = None
            self._pending.pop(0)
