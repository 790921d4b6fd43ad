"""Owns blending: the weights of a tile's pixels, and the weighted sums on the device.

Weights are small integers, and a tile's weight at (row, column) is the product of a row weight
and a column weight. Probabilities are integers too (`PROBABILITY_STEPS`). Sums of such products
are exact in int32, so the blended result does not depend on the order of tiles, the batch size or
the device: serial, distributed and resumed runs agree byte for byte, and blending equal
predictions returns them unchanged.

The largest sum occurs with ``linear`` at overlap 0.9, where the last tile, shifted inwards,
overlaps ten others: PROBABILITY_STEPS x (6 x PEAK)^2 < 2^31.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.choices import Blend
from wsi_seg.errors import ConfigError
from wsi_seg.inference.transfer import copy_to_device
from wsi_seg.predict.predictor import PROBABILITY_STEPS

# Weight at the centre of a tile. Weights are at least 1, so that every pixel counts.
PEAK = 120

MAX_OVERLAP = 0.9

# Steps of `PROBABILITY_STEPS` per step of the uint8 result.
STEP = PROBABILITY_STEPS // 255

# Called with the first row and blended rows, (channels, rows, columns) uint8 on the device, valid
# until the next call.
RowSink = Callable[[int, torch.Tensor], None]


def axis_weights(
    starts: tuple[int, ...], tile_px: int, *, length: int, blend: Blend
) -> NDArray[np.int32]:
    """Return the weights of all tiles along one axis.

    Parameters
    ----------
    starts
        First pixel of each tile, ascending.
    tile_px
        Side of a tile.
    length
        Number of pixels on the axis.
    blend
        ``gaussian`` has a standard deviation of an eighth of the tile, as in nnU-Net and MONAI.
        ``linear`` decreases linearly from the centre. ``constant`` weighs all pixels equally.
        ``crop`` assigns each pixel to the tile with the nearest centre, so that the overlap
        serves as context and is not averaged.

    Returns
    -------
    NDArray[np.int32]
        ``(len(starts), tile_px)``, 1 to `PEAK`; 0 only outside the crops of ``crop``.

    Raises
    ------
    ConfigError
        If ``blend`` is unknown.
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
    """Weight 1 where the tile's centre is the nearest of all tiles, 0 elsewhere."""
    tops = np.asarray(starts)
    borders = (tops[1:] + tops[:-1] + tile_px + 1) // 2
    first = np.concatenate([[0], borders])[:, None]
    after = np.concatenate([borders, [max(length, tile_px)]])[:, None]
    px = tops[:, None] + np.arange(tile_px)[None, :]
    return ((px >= first) & (px < after)).astype(np.int32)


class RowSums:
    """Weighted sums in a ring buffer as high as a tile, whatever the height of the slide.

    Tiles must arrive row by row. Row ``y`` of the slide is stored in row ``y % tile_px`` of the
    ring, so rows are never moved. Equally spaced tiles of a row that do not overlap each other are
    added in one call, through one strided view of the sums.

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
        Pixel columns to sum; must contain all tiles.
    device
        Device of the sums.
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
        # Summed column weights of each row of tiles with pixels that are not emitted yet.
        self._totals: dict[int, torch.Tensor] = {}
        self._block = (2**24 if device.type == "cuda" else 2**19) // (channels * len(columns)) or 1

    def enter(self, row: int, tiles: NDArray[np.int64]) -> None:
        """Add up the weights of tiles of a row before `add`; ``tiles`` are columns of the grid."""
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
            Row and columns of the tiles in the grid; columns ascending.
        predictions
            ``(len(tiles), channels, tile_px, tile_px)`` int32, 0 to `PROBABILITY_STEPS`.
        """
        first = 0
        for run in even_runs(self._xs[tiles]):
            count = len(run)
            spacing = int(run[1] - run[0]) if count > 1 else self._tile_px
            step = -(-self._tile_px // spacing)  # tiles this many columns apart do not overlap
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
        """Add tiles that do not overlap each other, every ``spacing`` pixels from ``x``."""
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
        """Pass the weighted means of rows ``[y, y + height)`` to the sink, and clear their sums.

        ``height`` is at most ``tile_px``; rows must be the oldest ones. Without a sink they are
        discarded.
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
        """Yield the first row in the slide, the first row in the ring, and the height of blocks."""
        top = y
        while top < y + height:
            first = top % self._tile_px
            count = min(self._block, y + height - top, self._tile_px - first)
            yield top, first, count
            top += count

    def _mean(self, top: int, sums: torch.Tensor) -> torch.Tensor:
        """Weighted means as ``(channels, rows, columns)`` uint8, rounded half up."""
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
    """Split ascending numbers greedily into runs of equal spacing.

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
