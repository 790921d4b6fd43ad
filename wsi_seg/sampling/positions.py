"""Owns where patches may be centred, so that no position in them sees more than another.

A label has the same mean at every position in a patch if centres are uniform over all positions
from which the patch would touch what it is drawn for: over an object's box, or over a layer's
cells, widened by half a patch. Centres inside the object alone would put it into the middle. Past a
slide's border patches are mirrored, so centres stay inside the slide. A slide that is no longer
than a patch along an axis is seen completely, in the patch's middle.

Where objects are close together their widened boxes overlap, and the middle of the cluster would be
drawn most often. Each position has a weight by which it is chosen inside a box. The chance of a
position is its weight times the sum, over the boxes that cover it, of 1 / (sum of weights in the
box). Weights are found by iteration so that this is nearly the same everywhere, as in the scaling
of Sinkhorn and Knopp (1967), beginning with 1 / (number of boxes over a position). It is not the
same exactly: an object alone and one of a cluster have as many draws, on areas that differ.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from wsi_seg.sampling.importance import Share, SlideMap

Floats = NDArray[np.float64]

# Positions that are tried for each draw, of which one is taken in proportion to what it counts.
_TRIED = 8
NUMBERS = 2 * _TRIED + 1

_POINTS_AT_ONCE = 1024

# Rounds that balance the weights. More of them do worse: what cannot be reached, because objects
# have equal draws, is then approached by weights that leave most of a cluster out.
_ROUNDS = 4
# Least weight relative to the largest: float16 holds it.
_LEAST = 2.0**-14


def widened(share: Share, cell_px: float, side: tuple[float, float]) -> Share:
    """Cells from which a patch may touch a layer, each with the most of what it may touch.

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
    """Height and width of each slide, ``(maps, 2)``."""
    return np.array([[m.extent.height, m.extent.width] for m in maps], dtype=np.float64)


def shown_whole(centres: Floats, lengths: Floats, sides: Floats) -> Floats:
    """Centres with those axes put in the middle along which a patch covers the whole slide.

    Parameters
    ----------
    centres
        ``(n, 2)``: y, x in level-0 pixels.
    lengths, sides
        ``(n, 2)``: height and width of each one's slide, and of a patch there.
    """
    return np.where(lengths <= sides, lengths / 2, centres)


class ObjectPositions:
    """Positions around objects.

    Parameters
    ----------
    maps
        One per slide; objects are counted through them one after the other.
    sides
        ``(maps, 2)``: height and width of a patch in level-0 pixels of each slide.
    """

    def __init__(self, maps: Sequence[SlideMap], sides: Floats) -> None:
        self._maps = tuple(maps)
        self.slide = np.repeat(np.arange(len(maps)), [len(m.boxes) for m in maps])
        self._boxes = np.concatenate(
            [_widened_boxes(*each) for each in zip(maps, sides, strict=True)]
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
        """Draw one centre around each of some objects.

        Parameters
        ----------
        objects
            ``(n,)`` indices.
        uniform
            ``(n, NUMBERS)`` in [0, 1).

        Returns
        -------
        NDArray[np.float64]
            ``(n, 2)``: y, x in level-0 pixels of the object's slide.
        """
        low, high = self._boxes[objects, None, :2], self._boxes[objects, None, 2:]
        tried = low + uniform[:, 1:].reshape(-1, _TRIED, 2) * (high - low)
        weights = self._weights(self.slide[objects, None], tried[..., 0], tried[..., 1])
        # A position where no object is seen is taken where all tried ones are such.
        weights[~weights.any(axis=1)] = 1.0
        sums = np.cumsum(weights, axis=1)
        taken = (sums <= uniform[:, :1] * sums[:, -1:]).sum(axis=1)
        centres: Floats = tried[np.arange(len(objects)), taken]
        return centres

    def free(self, number: int) -> NDArray[np.bool_]:
        """Cells of a slide in which a patch may be centred without touching an object."""
        free: NDArray[np.bool_] = self._grid_of(number) == 0
        return free

    def density(self, slide: NDArray[np.int32], y: Floats, x: Floats, turns: Floats) -> Floats:
        """Chance per px² that a draw around an object has its centre at each position.

        Parameters
        ----------
        slide, y, x
            Positions, ``(n,)``.
        turns
            Chance of each object, ``(objects,)``.
        """
        found = np.zeros(len(y))
        weights = self._weights(slide, y, x)
        for number in np.unique(slide):
            points, ours = np.flatnonzero(slide == number), self.slide == number
            low, high = self._boxes[ours, :2], self._boxes[ours, 2:]
            areas = np.prod(high - low, axis=1) * self._mean_weights(int(number))
            each = np.divide(turns[ours], areas, out=np.zeros(len(areas)), where=areas > 0)
            for part in np.array_split(points, -(-len(points) // _POINTS_AT_ONCE)):
                at = np.stack([y[part], x[part]], axis=1)[:, None]
                over = ((low <= at) & (at <= high)).all(axis=2)
                found[part] = (over @ each) * weights[part]
        return found

    def _weights(self, slide: NDArray[np.integer], y: Floats, x: Floats) -> Floats:
        """Weights of positions; 0 where a patch would touch no object."""
        row = np.minimum((y / self._cell_px[slide]).astype(np.int64), self._rows[slide] - 1)
        column = np.minimum((x / self._cell_px[slide]).astype(np.int64), self._columns[slide] - 1)
        cells = self._first[slide] + row * self._columns[slide] + column
        weights: Floats = self._grid[cells].astype(np.float64)
        return weights

    def _mean_weights(self, number: int) -> Floats:
        """Mean over each object's widened box, of one slide."""
        weights = self._grid_of(number).astype(np.float64)
        cell_px = float(self._cell_px[number])
        under = _cells_under(self._boxes[self.slide == number], cell_px, weights.shape)
        top, left, bottom, right = under
        means: Floats = _sums_under(weights, under) / ((bottom - top) * (right - left))
        return means

    def _grid_of(self, number: int) -> NDArray[np.float16]:
        grid = self._grid[self._first[number] : self._first[number + 1]]
        return grid.reshape(self._rows[number], self._columns[number])


def _widened_boxes(slide: SlideMap, side: Floats) -> Floats:
    """Boxes of the centres from which a patch touches each object's box, inside the slide."""
    length = np.array([slide.extent.height, slide.extent.width], dtype=np.float64)
    low = np.maximum(slide.boxes[:, :2] - side / 2, 0)
    high = np.minimum(slide.boxes[:, 2:] + side / 2, length)
    whole = length <= side
    return np.concatenate(
        [np.where(whole, length / 2, low), np.where(whole, length / 2, high)], axis=1
    )


def _box_weights(slide: SlideMap, side: Floats, boxes: Floats) -> NDArray[np.float16]:
    """Weights of cells as positions; 0 where a patch would touch no object."""
    shape = slide.tissue.shape
    under = _cells_under(boxes, slide.cell_px, shape)
    weights = _added_under(np.ones(len(boxes)), under, shape)  # how many boxes cover a cell
    if slide.covered is not None:
        weights[widened(slide.covered, slide.cell_px, (side[0], side[1])) == 0] = 0
    seen = weights > 0.5
    overlap = weights.max(initial=0) > 1.5
    np.divide(1, weights, out=weights, where=seen)
    for _ in range(_ROUNDS if overlap else 0):
        _balance(weights, seen, under)
    np.maximum(weights, _LEAST, out=weights, where=seen)
    return weights.astype(np.float16)


def _balance(
    weights: Floats, seen: NDArray[np.bool_], under: tuple[NDArray[np.int64], ...]
) -> None:
    """Change the weights of the cells seen towards equal chances, the largest to 1."""
    sums = _sums_under(weights, under)
    each = np.divide(1, sums, out=np.zeros(len(sums)), where=sums > 0)
    chances = _added_under(each, under, weights.shape)
    least = chances.min(initial=np.inf, where=seen)
    np.divide(least, chances, out=weights, where=seen)


def _added_under(
    values: Floats, under: tuple[NDArray[np.int64], ...], shape: tuple[int, ...]
) -> Floats:
    """Sum at each cell of the values of those boxes that cover it."""
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
    """Sum of the cells that each box covers."""
    sums = np.zeros((weights.shape[0] + 1, weights.shape[1] + 1))
    np.cumsum(weights, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    top, left, bottom, right = under
    inside: Floats = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside


def _cells_under(
    boxes: Floats, cell_px: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """First row and column that boxes touch, and the first ones after."""
    rows, columns = shape
    low = np.floor(boxes[:, :2] / cell_px).astype(np.int64)
    high = np.ceil(boxes[:, 2:] / cell_px).astype(np.int64)
    low = np.minimum(low, [rows - 1, columns - 1])
    high = np.clip(high, low + 1, [rows, columns])
    return low[:, 0], low[:, 1], high[:, 0], high[:, 1]
