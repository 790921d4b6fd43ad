"""Owns where patches may be centred, so that labels are equally frequent everywhere in a patch.

The mean of a label is the same at every position in a patch if centres are uniform over all
positions from which the patch overlaps its target: an object's bounding box, or a layer's cells,
dilated by half a patch. Centres on the object only would put it into the middle of every patch.
Past a slide's border patches are mirrored, so centres stay inside the slide. Along an axis on which
the slide is not longer than a patch, the patch is centred on the slide.

The dilated boxes of objects close together overlap, and the middle of a cluster would be drawn most
often. Each position therefore has a weight with which it is chosen inside a box. The probability of
a position is its weight times the sum, over the boxes that cover it, of 1 / (sum of weights in the
box). The weights are iterated until this is nearly uniform, as in Sinkhorn-Knopp scaling (1967),
starting from 1 / (number of boxes over a position). It cannot be exactly uniform: a single object
and one in a cluster have equally many draws, on areas of different size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from wsi_seg.sampling.importance import Share, SlideMap

Floats = NDArray[np.float64]

# Candidate positions per draw, of which one is taken in proportion to its weight.
_CANDIDATES = 8
# Uniform numbers per draw.
NUMBERS = 2 * _CANDIDATES + 1

_POINTS_AT_ONCE = 1024

# Iterations that balance the weights. More make it worse: a uniform density is out of reach because
# objects have equally many draws, and the weights then leave out most of a cluster.
_ITERATIONS = 4
# Minimum weight relative to the largest: the smallest normal float16.
_MIN_WEIGHT = 2.0**-14


def dilate(share: Share, cell_px: float, side: tuple[float, float]) -> Share:
    """Dilate a layer by half a patch, by a maximum filter, ``(rows, columns)`` uint8.

    Parameters
    ----------
    share
        ``(rows, columns)`` uint8, see `SlideMap`.
    cell_px
        Side of a cell in level-0 pixels.
    side
        Height and width of a patch in level-0 pixels.
    """
    for axis, length in enumerate(side):
        reach = int(np.ceil(length / 2 / cell_px))
        share = maximum_filter1d(share, 2 * reach + 1, axis=axis, mode="constant", cval=0)
    return share


def lengths_of(maps: Sequence[SlideMap]) -> Floats:
    """Return height and width of each slide in level-0 pixels, ``(maps, 2)`` float64."""
    return np.array([[m.extent.height, m.extent.width] for m in maps], dtype=np.float64)


def centre_small_slides(centres: Floats, lengths: Floats, sides: Floats) -> Floats:
    """Move centres ``(n, 2)`` to the middle of the slide along axes on which a patch covers it.

    Parameters
    ----------
    centres
        ``(n, 2)``: y, x in level-0 pixels.
    lengths, sides
        ``(n, 2)``: height and width of the slide and of the patch of each centre.
    """
    return np.where(lengths <= sides, lengths / 2, centres)


class ObjectPositions:
    """Sampler of patch centres around objects.

    Parameters
    ----------
    maps
        One per slide; objects are numbered through all maps.
    sides
        ``(maps, 2)``: height and width of a patch in level-0 pixels of each slide.
    """

    def __init__(self, maps: Sequence[SlideMap], sides: Floats) -> None:
        self._maps = tuple(maps)
        self.slide = np.repeat(np.arange(len(maps)), [len(m.boxes) for m in maps])
        self._boxes = np.concatenate(
            [_dilated_boxes(*each) for each in zip(maps, sides, strict=True)]
        )
        grids = [
            _box_weights(m, side, self._boxes[self.slide == number])
            for number, (m, side) in enumerate(zip(maps, sides, strict=True))
        ]
        self._columns = np.array([grid.shape[1] for grid in grids])
        self._rows = np.array([grid.shape[0] for grid in grids])
        self._cell_px = np.array([m.cell_px for m in maps])
        self._first = np.cumsum([0, *(grid.size for grid in grids)])
        self._grid = np.concatenate([grid.ravel() for grid in grids])

    def draw(self, objects: NDArray[np.int64], uniform: Floats) -> Floats:
        """Draw one centre around each object.

        Parameters
        ----------
        objects
            Indices of objects, ``(n,)``.
        uniform
            Uniform numbers in [0, 1), ``(n, NUMBERS)``.

        Returns
        -------
        NDArray[np.float64]
            ``(n, 2)``: y, x in level-0 pixels of the object's slide.
        """
        low, high = self._boxes[objects, None, :2], self._boxes[objects, None, 2:]
        candidates = low + uniform[:, 1:].reshape(-1, _CANDIDATES, 2) * (high - low)
        weights = self._weights(self.slide[objects, None], candidates[..., 0], candidates[..., 1])
        # If no candidate overlaps an object, take any of them.
        weights[~weights.any(axis=1)] = 1.0
        sums = np.cumsum(weights, axis=1)
        taken = (sums <= uniform[:, :1] * sums[:, -1:]).sum(axis=1)
        centres: Floats = candidates[np.arange(len(objects)), taken]
        return centres

    def free(self, number: int) -> NDArray[np.bool_]:
        """Return the cells of a map where a patch overlaps no object, ``(rows, columns)`` bool."""
        free: NDArray[np.bool_] = self._grid_of(number) == 0
        return free

    def density(self, slide: NDArray[np.int32], y: Floats, x: Floats, turns: Floats) -> Floats:
        """Return the probability density per px² of draws around objects, ``(n,)`` float64.

        Parameters
        ----------
        slide, y, x
            Index of the map, and position in level-0 pixels, ``(n,)``.
        turns
            Probability of each object in a draw, ``(objects,)``.
        """
        found = np.zeros(len(y))
        weights = self._weights(slide, y, x)
        for number in np.unique(slide):
            points, ours = np.flatnonzero(slide == number), self.slide == number
            low, high = self._boxes[ours, :2], self._boxes[ours, 2:]
            # Where a patch covers the slide, the only centre stands for the whole slide.
            extent = self._maps[number].extent
            sides = np.where(high > low, high - low, [extent.height, extent.width])
            areas = np.prod(sides, axis=1) * self._mean_weights(int(number))
            each = np.divide(turns[ours], areas, out=np.zeros(len(areas)), where=areas > 0)
            for part in np.array_split(points, -(-len(points) // _POINTS_AT_ONCE)):
                at = np.stack([y[part], x[part]], axis=1)[:, None]
                over = ((low <= at) & (at <= high)).all(axis=2)
                found[part] = (over @ each) * weights[part]
        return found

    def _weights(self, slide: NDArray[np.integer], y: Floats, x: Floats) -> Floats:
        """Return the weights of positions; 0 where a patch overlaps no object."""
        row = np.minimum((y / self._cell_px[slide]).astype(np.int64), self._rows[slide] - 1)
        column = np.minimum((x / self._cell_px[slide]).astype(np.int64), self._columns[slide] - 1)
        cells = self._first[slide] + row * self._columns[slide] + column
        weights: Floats = self._grid[cells].astype(np.float64)
        return weights

    def _mean_weights(self, number: int) -> Floats:
        """Return the mean weight over the dilated box of each object of one slide."""
        weights = self._grid_of(number).astype(np.float64)
        cell_px = float(self._cell_px[number])
        under = _cells_under(self._boxes[self.slide == number], cell_px, weights.shape)
        top, left, bottom, right = under
        means: Floats = _sums_under(weights, under) / ((bottom - top) * (right - left))
        return means

    def _grid_of(self, number: int) -> NDArray[np.float16]:
        grid = self._grid[self._first[number] : self._first[number + 1]]
        return grid.reshape(self._rows[number], self._columns[number])


def _dilated_boxes(slide: SlideMap, side: Floats) -> Floats:
    """Return the boxes of centres from which a patch overlaps each object's bounding box."""
    length = np.array([slide.extent.height, slide.extent.width], dtype=np.float64)
    low = np.maximum(slide.boxes[:, :2] - side / 2, 0)
    high = np.minimum(slide.boxes[:, 2:] + side / 2, length)
    whole = length <= side
    return np.concatenate(
        [np.where(whole, length / 2, low), np.where(whole, length / 2, high)], axis=1
    )


def _box_weights(slide: SlideMap, side: Floats, boxes: Floats) -> NDArray[np.float16]:
    """Compute the weights of cells as centres; 0 where a patch overlaps no object."""
    shape = slide.tissue.shape
    under = _cells_under(boxes, slide.cell_px, shape)
    weights = _added_under(np.ones(len(boxes)), under, shape)  # number of boxes over each cell
    if slide.covered is not None:
        weights[dilate(slide.covered, slide.cell_px, (side[0], side[1])) == 0] = 0
    seen = weights > 0.5
    overlap = weights.max(initial=0) > 1.5
    np.divide(1, weights, out=weights, where=seen)
    for _ in range(_ITERATIONS if overlap else 0):
        _balance(weights, seen, under)
    np.maximum(weights, _MIN_WEIGHT, out=weights, where=seen)
    return weights.astype(np.float16)


def _balance(
    weights: Floats, seen: NDArray[np.bool_], under: tuple[NDArray[np.int64], ...]
) -> None:
    """Update the weights in place towards uniform probabilities; the largest becomes 1."""
    sums = _sums_under(weights, under)
    each = np.divide(1, sums, out=np.zeros(len(sums)), where=sums > 0)
    chances = _added_under(each, under, weights.shape)
    least = chances.min(initial=np.inf, where=seen)
    np.divide(least, chances, out=weights, where=seen)


def _added_under(
    values: Floats, under: tuple[NDArray[np.int64], ...], shape: tuple[int, ...]
) -> Floats:
    """Sum, at each cell, the values of the boxes that cover it."""
    steps = np.zeros((shape[0] + 1, shape[1] + 1))
    top, left, bottom, right = under
    for row, column, sign in (
        (top, left, 1),
        (bottom, right, 1),
        (top, right, -1),
        (bottom, left, -1),
    ):
        np.add.at(steps, (row, column), sign * values)
    np.cumsum(steps, axis=0, out=steps)
    np.cumsum(steps, axis=1, out=steps)
    return steps[:-1, :-1]


def _sums_under(weights: Floats, under: tuple[NDArray[np.int64], ...]) -> Floats:
    """Sum the weights of the cells that each box covers."""
    sums = np.zeros((weights.shape[0] + 1, weights.shape[1] + 1))
    np.cumsum(weights, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    top, left, bottom, right = under
    inside: Floats = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside


def _cells_under(
    boxes: Floats, cell_px: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """Return top, left, bottom and right (exclusive) of the cells that each box touches."""
    rows, columns = shape
    low = np.floor(boxes[:, :2] / cell_px).astype(np.int64)
    high = np.ceil(boxes[:, 2:] / cell_px).astype(np.int64)
    low = np.minimum(low, [rows - 1, columns - 1])
    high = np.clip(high, low + 1, [rows, columns])
    return low[:, 0], low[:, 1], high[:, 0], high[:, 1]
