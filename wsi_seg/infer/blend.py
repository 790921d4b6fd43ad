"""Owns blending: how much each pixel of a tile counts, and the sums on the device.

Weights are small whole numbers, and a tile's weight at (row, column) is the product of a row
weight and a column weight. Probabilities are whole numbers too (`PROBABILITY_STEPS`). Sums of
such products are exact in int32, so the blended result does not depend on the order in which
tiles arrive, on the batch, or on the device: serial, distributed and resumed runs agree byte
for byte, and equal predictions blend to exactly themselves.

The largest sum occurs with ``linear`` at overlap 0.9, where the last tile, moved inwards, is
over ten others: PROBABILITY_STEPS x (6 x PEAK)^2 < 2^31.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.choices import Blend
from wsi_seg.errors import ConfigError
from wsi_seg.infer.transfer import copy_to_device
from wsi_seg.predict.predictor import PROBABILITY_STEPS

# Weight in the middle of a tile. The floor of 1 / PEAK per axis keeps every pixel above zero.
PEAK = 120

MAX_OVERLAP = 0.9

# Steps of PROBABILITY_STEPS for each step of the uint8 result.
STEP = PROBABILITY_STEPS // 255

# Receives blended rows: first row, uint8 (channels, rows, columns) on the device, valid until the
# next call.
RowSink = Callable[[int, torch.Tensor], None]


def axis_weights(
    starts: tuple[int, ...], tile_px: int, *, length: int, blend: Blend
) -> NDArray[np.int32]:
    """Weights along one axis of every tile on that axis.

    Parameters
    ----------
    starts
        First pixel of each tile, ascending.
    tile_px
        Side of a tile.
    length
        Number of pixels on the axis.
    blend
        ``gaussian`` has a standard deviation of an eighth of the tile, the value common in the
        field (nnU-Net, MONAI). ``linear`` falls off evenly from the middle. ``constant`` weighs
        all pixels alike. ``crop`` lets each pixel belong to one tile alone, the one whose middle
        is nearest, so that context is read but not averaged.

    Returns
    -------
    NDArray[np.int32]
        Shape ``(len(starts), tile_px)``, 1 to `PEAK`; 0 only where ``crop`` cuts.
    """
    if blend == "crop":
        return _owned(starts, tile_px, length)
    offsets = np.arange(tile_px) - (tile_px - 1) / 2
    if blend == "gaussian":
        profile = np.exp(-0.5 * (offsets / (tile_px / 8)) ** 2)
    elif blend == "linear":
        profile = 1 - np.abs(offsets) / (tile_px / 2)
    elif blend == "constant":
        profile = np.zeros(tile_px)  # the floor below makes every weight 1
    else:
        raise ConfigError(f"got blend {blend!r}; expected one of gaussian, linear, constant, crop")
    weights = np.maximum(1, np.rint(PEAK * profile)).astype(np.int32)
    return np.tile(weights, (len(starts), 1))


def _owned(starts: tuple[int, ...], tile_px: int, length: int) -> NDArray[np.int32]:
    """Ones where the tile's middle is nearer than any other's, zeros elsewhere."""
    tops = np.asarray(starts)
    borders = (tops[1:] + tops[:-1] + tile_px + 1) // 2
    first = np.concatenate([[0], borders])[:, None]
    after = np.concatenate([borders, [max(length, tile_px)]])[:, None]
    px = tops[:, None] + np.arange(tile_px)[None, :]
    return ((px >= first) & (px < after)).astype(np.int32)


class RowSums:
    """Sums over as many rows as a tile is high, whatever the slide's height: a ring of rows.

    Tiles arrive row of tiles by row of tiles. Row ``y`` of the slide is in row ``y % tile_px``
    of the ring, so nothing is ever moved. Equally spaced tiles of a row are added a few calls at a
    time, not one by one: those that do not overlap each other are one view of the sums.

    Parameters
    ----------
    ys
        First pixel row of each row of tiles.
    xs
        First pixel column of each column of tiles.
    row_weights, column_weights
        See `axis_weights`.
    channels
        Number of classes.
    columns
        Pixel columns that are summed, all tiles that will arrive inside.
    device
        Where the sums are kept.
    """

    def __init__(
        self,
        ys: tuple[int, ...],
        xs: tuple[int, ...],
        row_weights: NDArray[np.int32],
        column_weights: NDArray[np.int32],
        *,
        channels: int,
        columns: range,
        device: torch.device,
    ) -> None:
        self._ys, self._xs = np.asarray(ys), np.asarray(xs)
        self._tile_px, self.channels = row_weights.shape[1], channels
        self._columns = columns
        self._along_x = column_weights
        self._row_weights = copy_to_device(row_weights, device)
        self._column_weights = copy_to_device(column_weights, device)
        # Only ``crop`` weighs tiles differently.
        self._alike = bool((row_weights == row_weights[0]).all()) and bool(
            (column_weights == column_weights[0]).all()
        )
        self._weight = self._row_weights[0][:, None] * self._column_weights[0]
        size = (channels, self._tile_px, len(columns))
        self._sums = torch.zeros(size, dtype=torch.int32, device=device)
        # Of each row of tiles whose pixels are not emitted yet: its column weights, summed.
        self._totals: dict[int, torch.Tensor] = {}
        self._block = (2**24 if device.type == "cuda" else 2**19) // (channels * len(columns)) or 1

    def enter(self, row: int, tiles: NDArray[np.int64]) -> None:
        """Count the weights of tiles of a row before they are added; ``tiles`` are columns."""
        places = self._xs[tiles, None] - self._columns.start + np.arange(self._tile_px)
        totals = np.bincount(
            places.ravel(), self._along_x[tiles].ravel(), minlength=len(self._columns)
        )
        total = copy_to_device(totals.astype(np.int32), self._sums.device)
        self._totals[row] = total if row not in self._totals else self._totals[row] + total

    def add(self, row: int, tiles: NDArray[np.int64], predictions: torch.Tensor) -> None:
        """Add tiles of one row.

        Parameters
        ----------
        row, tiles
            Row in the grid of tiles, and columns in it, ascending.
        predictions
            ``(len(tiles), channels, tile_px, tile_px)`` int32, 0 to `PROBABILITY_STEPS`.
        """
        first = 0
        for run in even_runs(self._xs[tiles]):
            count = len(run)
            spacing = int(run[1] - run[0]) if count > 1 else self._tile_px
            step = -(-self._tile_px // spacing)  # every so many tiles do not overlap
            for offset in range(min(step, count)):
                chosen = slice(first + offset, first + count, step)
                x = int(run[offset]) - self._columns.start
                self._add_disjoint(row, tiles[chosen], x, step * spacing, predictions[chosen])
            first += count

    def _add_disjoint(
        self,
        row: int,
        tiles: NDArray[np.int64],
        x: int,
        spacing: int,
        predictions: torch.Tensor,
    ) -> None:
        """Add tiles that do not overlap each other, every ``spacing`` pixels from ``x`` on."""
        weight = self._weight
        if not self._alike:
            across = self._column_weights[tiles[0] : tiles[-1] + 1 : _step(tiles)]
            weight = self._row_weights[row][:, None] * across[:, None, None, :]
        tile_px, width = self._tile_px, len(self._columns)
        turn = int(self._ys[row]) % tile_px
        for top, rows in ((turn, slice(0, tile_px - turn)), (0, slice(tile_px - turn, tile_px))):
            height = rows.stop - rows.start
            if height == 0:
                continue
            view = self._sums.as_strided(
                (len(tiles), self._sums.shape[0], height, tile_px),
                (spacing, tile_px * width, width, 1),
                top * width + x,
            )
            view.addcmul_(predictions[:, :, rows], weight[..., rows, :])

    def emit(self, y: int, height: int, sink: RowSink | None) -> None:
        """Give the means of rows ``[y, y + height)`` away and set the sums to 0.

        ``height`` is at most ``tile_px``; the rows must be those that were added first. Without a
        sink they are dropped.
        """
        for top, first, count in self._portions(y, height):
            sums = self._sums[:, first : first + count]
            if sink is not None:
                sink(top, self._mean(top, sums))
            sums.zero_()
        for row in list(self._totals):
            if self._ys[row] + self._tile_px <= y + height:
                del self._totals[row]

    def _portions(self, y: int, height: int) -> Iterator[tuple[int, int, int]]:
        """First row of the slide, first row in the ring, and rows of each block."""
        top = y
        while top < y + height:
            first = top % self._tile_px
            count = min(self._block, y + height - top, self._tile_px - first)
            yield top, first, count
            top += count

    def _mean(self, top: int, sums: torch.Tensor) -> torch.Tensor:
        """Probabilities of some rows, ``(channels, rows, columns)`` uint8, rounded half up."""
        weight = torch.zeros_like(sums[0])
        for row, total in self._totals.items():
            y = int(self._ys[row])
            first, after = max(top, y), min(top + len(weight), y + self._tile_px)
            if first < after:
                along_y = self._row_weights[row, first - y : after - y]
                weight[first - top : after - top].addcmul_(along_y[:, None], total[None])
        means = torch.add(sums, weight, alpha=STEP // 2)
        means.div_(weight.clamp_(min=1).mul_(STEP), rounding_mode="floor")
        return means.to(torch.uint8)


def even_runs(starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut ascending numbers into runs of equal spacing, as few as a walk from left to right finds.

    Examples
    --------
    >>> [run.tolist() for run in even_runs(np.array([0, 4, 8, 9, 17]))]
    [[0, 4, 8], [9, 17]]
    """
    first = 0
    while first < len(starts):
        steps = np.diff(starts[first:])
        uneven = np.flatnonzero(steps != steps[0]) if len(steps) else steps
        after = first + 1 + (int(uneven[0]) if len(uneven) else len(steps))
        yield starts[first:after]
        first = after


def _step(tiles: NDArray[np.int64]) -> int:
    return int(tiles[1] - tiles[0]) if len(tiles) > 1 else 1
