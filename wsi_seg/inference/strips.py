"""Owns the strips of a prediction: blends tiles, downloads finished rows, cuts them into strips."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.inference.blend import RowSums
from wsi_seg.inference.plan import SlidePlan
from wsi_seg.inference.resample import resized
from wsi_seg.inference.seams import Steps, StepSums
from wsi_seg.inference.transfer import Budget, Transfers


@dataclass(frozen=True, slots=True)
class Strip:
    """Finished rows of one slide.

    Parameters
    ----------
    index
        Index of the strip in the plan.
    probabilities
        ``(H, W, C)`` uint8, value / 255; None if only labels are saved, or with ``native``.
    labels
        ``(H, W)`` uint8 class ids; None if the sink computes them.
    steps
        For the seam score; None if the sink measures them.
    native
        For an ensemble that saw a resized slide: returns rows of the combined probabilities at the
        slide's own size, ``(rows, W, C)`` uint8; thread-safe. Otherwise None.
    """

    index: int
    probabilities: NDArray[np.uint8] | None
    labels: NDArray[np.uint8] | None = None
    steps: Steps | None = None
    native: Callable[[range], NDArray[np.uint8]] | None = None

    def at_size(self, native: Extent) -> Callable[[range], NDArray[np.uint8]]:
        """Return a function that computes rows of a resized slide at its own size on demand."""
        if self.native is not None:
            return self.native
        fitted = self.probabilities
        assert fitted is not None
        small = Extent.of(fitted.shape)
        return lambda rows: resized(fitted, 0, rows, small=small, full=native)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which arrays to compute from rows on the device and download.

    ``exclusive`` is whether labels are of exclusive classes, see `postprocess.label_map`.
    """

    probabilities: bool = True
    labels: bool = False
    steps: bool = False
    exclusive: bool = False


# Waits until a strip is downloaded and returns it; call it once, from any thread.
PendingStrip = Callable[[], Strip]
StripSink = Callable[[PendingStrip], None]


class Accumulator:
    """Blends the tiles of one slide and cuts the result into strips.

    Parameters
    ----------
    plan
        The slide's plan.
    strips
        Indices of the strips to produce.
    channels
        Number of classes.
    wanted
        Arrays to compute.
    transfers, budget
        Download rows, within a limit of memory.
    sink
        Called with every strip, in order.
    """

    def __init__(
        self,
        plan: SlidePlan,
        strips: frozenset[int],
        *,
        channels: int,
        wanted: Wanted,
        transfers: Transfers,
        budget: Budget,
        sink: StripSink,
    ) -> None:
        self._plan = plan
        self._rows = plan.rows_for(strips)
        self._position = 0
        columns = plan.columns_for(self._rows)
        # One more pixel on either side: the drop to 0 there counts as a step of the seam score.
        columns = range(
            max(0, columns.start - 1),
            max(1, min(columns.stop + 1, max(plan.extent.width, plan.tile_px))),
        )
        self._sums = RowSums(
            plan.ys,
            plan.xs,
            plan.row_weights,
            plan.column_weights,
            channels=channels,
            columns=columns,
            device=transfers.device,
        )
        columns = range(columns.start, min(columns.stop, plan.extent.width))
        self._builder = StripBuilder(plan, strips, channels, columns, wanted, transfers)
        self._builder.budget, self._builder.sink = budget, sink

    def add(self, row: int, tiles: NDArray[np.int64], predictions: torch.Tensor) -> None:
        """Add tiles of one row; rows must arrive in ascending order. See `RowSums.add`."""
        while self._rows[self._position] < row:
            self._emit_row()
        self._sums.enter(row, tiles)
        self._sums.add(row, tiles, predictions)

    def finish(self) -> None:
        """Emit all remaining rows."""
        while self._position < len(self._rows):
            self._emit_row()

    def _emit_row(self) -> None:
        """Emit the pixel rows above the next row of tiles."""
        plan = self._plan
        top = plan.ys[self._rows[self._position]]
        self._position += 1
        height = plan.tile_px
        if self._position < len(self._rows):
            height = min(plan.ys[self._rows[self._position]] - top, height)
        wanted = self._builder.wants(top, top + height)
        self._sums.emit(top, height, self._builder.put if wanted else None)


class StripBuilder:
    """Collects emitted rows into the requested strips, and discards other rows."""

    budget: Budget
    sink: StripSink

    def __init__(
        self,
        plan: SlidePlan,
        strips: frozenset[int],
        channels: int,
        columns: range,
        wanted: Wanted,
        transfers: Transfers,
    ) -> None:
        self._pending = [(index, *plan.strips[index]) for index in sorted(strips)]
        self._channels, self._columns, self._wanted = channels, columns, wanted
        self._width, self._transfers = plan.extent.width, transfers
        self._sums = StepSums(plan, columns, transfers.device) if wanted.steps else None
        self._open: OpenStrip | None = None

    def wants(self, y: int, y_end: int) -> bool:
        """Whether any of these rows belong to a requested strip."""
        return bool(self._pending) and self._pending[0][1] < y_end and y < self._pending[-1][2]

    def put(self, y: int, rows: torch.Tensor) -> None:
        """Add rows, the first at ``y``, as ``(channels, rows, columns)`` uint8."""
        while self._pending:
            index, top, bottom = self._pending[0]
            first, after = max(y, top), min(y + rows.shape[1], bottom)
            if first >= after:
                return
            if self._open is None:
                self._open = self._begin(index, bottom - top, top)
            part = rows[:, first - y : after - y, : len(self._columns)]
            self._take(self._open, first, first - top, part)
            if after < bottom:
                return
            self.sink(self._open.closed(self._transfers, self.budget))
            self._open = None
            self._pending.pop(0)

    def _begin(self, index: int, height: int, top: int) -> "OpenStrip":
        width, wanted, transfers = len(self._columns), self._wanted, self._transfers
        size = (height, width, self._channels)
        nbytes = (self._channels * wanted.probabilities + wanted.labels) * height * self._width
        self.budget.take(nbytes)
        return OpenStrip(
            index,
            self._columns,
            self._width,
            nbytes,
            transfers.buffer(*size) if wanted.probabilities else None,
            transfers.buffer(height, width) if wanted.labels else None,
            self._sums is not None and self._sums.follows(top),
        )

    def _take(self, strip: "OpenStrip", y: int, at: int, part: torch.Tensor) -> None:
        """Compute the arrays of some rows, and start to download them into the strip."""
        rows = slice(at, at + part.shape[1])
        if strip.probabilities is not None:
            last = part.permute(1, 2, 0).contiguous()
            self._transfers.download(last, strip.probabilities[rows])
        if strip.labels is not None:
            ids = label_ids(part, exclusive=self._wanted.exclusive)
            self._transfers.download(ids, strip.labels[rows])
        if self._sums is not None:
            steps = self._sums.of(y, part, first=at == 0)
            strip.steps = steps if strip.steps is None else strip.steps + steps


@dataclass(slots=True, eq=False)
class OpenStrip:
    """A strip that is not complete yet."""

    index: int
    columns: range
    width: int
    nbytes: int
    probabilities: torch.Tensor | None
    labels: torch.Tensor | None
    follows: bool
    steps: torch.Tensor | None = None

    def closed(self, transfers: Transfers, budget: Budget) -> PendingStrip:
        """Return a function that waits for all rows, returns the strip and releases its budget."""
        sums: torch.Tensor | None = None
        if self.steps is not None:
            sums = transfers.buffer(self.steps.nbytes).view(torch.int64)
            transfers.download(self.steps, sums)
        finished = transfers.finished()

        def arrived() -> Strip:
            try:
                finished()
                return Strip(
                    self.index,
                    self._widened(self.probabilities),
                    self._widened(self.labels),
                    None if sums is None else self._steps(sums),
                )
            finally:
                budget.give(self.nbytes)

        return arrived

    def _steps(self, sums: torch.Tensor) -> Steps:
        elsewhere, border, joint = sums.tolist()
        return Steps(elsewhere, border, joint if self.follows else None)

    def _widened(self, rows: torch.Tensor | None) -> NDArray[np.uint8] | None:
        """Pad rows with 0 to the width of the slide."""
        if rows is None:
            return None
        found: NDArray[np.uint8] = rows.numpy()
        if len(self.columns) == self.width:
            return found
        full = np.zeros((len(found), self.width, *found.shape[2:]), dtype=np.uint8)
        full[:, self.columns.start : self.columns.stop] = found
        return full


def label_ids(rows: torch.Tensor, *, exclusive: bool = False) -> torch.Tensor:
    """Compute class ids from probabilities on their device, as `postprocess.label_map` does.

    Parameters
    ----------
    rows
        Probabilities, ``(channels, rows, columns)`` uint8, value / 255.
    exclusive
        Whether a class must exceed the background, 255 minus the sum of all classes, rather than
        one half.

    Returns
    -------
    torch.Tensor
        ``(rows, columns)`` uint8; 0 is background.
    """
    if len(rows) == 1:
        return (rows[0] > 127).to(torch.uint8)
    ids = torch.zeros_like(rows[0])
    best = torch.full_like(rows[0], 255 if exclusive else 127)
    for probability in rows if exclusive else ():
        best -= torch.minimum(best, probability)
    for channel, probability in enumerate(rows):
        ids.masked_fill_(probability > best, channel + 1)
        torch.maximum(best, probability, out=best)
    return ids
