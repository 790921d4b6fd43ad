"""Owns connected components of a label map that arrives in strips, found in runs along rows.

Runs are joined where they overlap the row above (pixels that only touch at a corner belong to
different objects), so a strip's border is a row border like any other. Every component of one
strip has a provisional label; labels that later strips join are one object. Memory holds one
strip, and a few numbers for each label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of equal pixels, in raster order.

    Parameters
    ----------
    begin, end
        ``(n,)`` flat indices ``y * width + x`` in the whole label map, half open; never more than
        one row.
    value
        ``(n,)`` uint8, the class id of the run.
    label
        ``(n,)`` provisional label of its component; see `ConnectedComponents.objects`.
    shared
        ``(n,)`` length in pixels of its upper border that touches a run of its own value.
    """

    begin: Ints
    end: Ints
    value: NDArray[np.uint8]
    label: Ints
    shared: Ints

    @property
    def length(self) -> Ints:
        """``(n,)`` number of pixels."""
        return self.end - self.begin

    def after(self, index: int) -> "Runs":
        """Leave out the runs before this one."""
        return Runs(
            self.begin[index:],
            self.end[index:],
            self.value[index:],
            self.label[index:],
            self.shared[index:],
        )


def find_runs(rows: NDArray[np.uint8], y: int, *, background: bool) -> tuple[Ints, Ints]:
    """Begin and end of each run of equal pixels in a strip whose first row is ``y``.

    Parameters
    ----------
    rows
        ``(h, W)`` uint8.
    y
        Row of the first of them.
    background
        Whether runs of 0 are wanted, too.
    """
    change = np.ones(rows.shape, dtype=bool)
    np.not_equal(rows[:, 1:], rows[:, :-1], out=change[:, 1:])
    begin = np.flatnonzero(change)
    end = np.append(begin[1:], rows.size)
    if not background:
        kept = rows.ravel()[begin] != 0
        begin, end = begin[kept], end[kept]
    offset = y * rows.shape[1]
    return begin + offset, end + offset


class ConnectedComponents:
    """Labels connected runs, strip by strip from top to bottom.

    Parameters
    ----------
    background
        Whether pixels of 0 form objects, too, as the search for holes needs.
    """

    def __init__(self, *, background: bool = False) -> None:
        self._background = background
        self._labels = 0
        self._joins: list[Ints] = []
        nothing = np.empty(0, dtype=np.int64)
        self._last = Runs(nothing, nothing, nothing.astype(np.uint8), nothing, nothing)

    @property
    def labels(self) -> int:
        """Number of provisional labels so far."""
        return self._labels

    def add(self, y: int, rows: NDArray[np.uint8]) -> Runs:
        """Take the next strip, ``(h, W)`` uint8 with first row ``y``; return its runs."""
        width = rows.shape[1]
        begin, end = find_runs(rows, y, background=self._background)
        value = rows.ravel()[begin - y * width]
        above = len(self._last.begin)
        begins = np.concatenate([self._last.begin, begin])
        ends = np.concatenate([self._last.end, end])
        values = np.concatenate([self._last.value, value])
        upper, lower = overlapping(begins + width, ends + width, begins, ends)
        same = values[upper] == values[lower]
        upper, lower = upper[same], lower[same]
        overlap = np.minimum(ends[upper] + width, ends[lower])
        overlap -= np.maximum(begins[upper] + width, begins[lower])
        shared = np.zeros(len(begins), dtype=np.int64)
        np.add.at(shared, lower, overlap)
        inside = upper >= above
        label = _groups(len(begin), upper[inside] - above, lower[inside] - above) + self._labels
        seam = np.stack([self._last.label[upper[~inside]], label[lower[~inside] - above]], axis=1)
        self._joins.append(np.unique(seam, axis=0))
        self._labels = int(label.max()) + 1 if len(label) else self._labels
        runs = Runs(begin, end, value, label, shared[above:])
        bottom = np.searchsorted(begin, (y + len(rows) - 1) * width)
        self._last = runs.after(int(bottom))
        return runs

    def objects(self) -> Ints:
        """Object of each provisional label: 0, 1, 2 ... in raster order of first pixels.

        The same whatever the height of the strips was.
        """
        joins = np.concatenate([*self._joins, np.empty((0, 2), dtype=np.int64)])
        return _groups(self._labels, joins[:, 0], joins[:, 1])


def overlapping(begin: Ints, end: Ints, other_begin: Ints, other_end: Ints) -> tuple[Ints, Ints]:
    """Find which runs share pixels with which others; both in raster order.

    Returns
    -------
    run, other : NDArray[np.int64]
        ``(n,)`` indices of each pair.
    """
    first = np.searchsorted(other_end, begin, side="right")
    count = np.maximum(np.searchsorted(other_begin, end, side="left") - first, 0)
    run = np.repeat(np.arange(len(begin)), count)
    other = np.arange(len(run)) - np.repeat(np.cumsum(count) - count - first, count)
    return run, other


def _groups(count: int, a: Ints, b: Ints) -> Ints:
    """Find connected groups of the numbers below ``count``, numbered by their lowest member."""
    if not count:
        return np.empty(0, dtype=np.int64)
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    _, found = connected_components(graph, directed=False)
    _, first, group = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: Ints = rank[group]
    return numbered


def over_runs(
    ufunc: np.ufunc, pixels: NDArray[np.uint8] | NDArray[np.bool_], begin: Ints, end: Ints
) -> Ints:
    """Reduce the pixels of each run, such as by ``np.add``.

    Parameters
    ----------
    ufunc
        Takes two numbers.
    pixels
        ``(h, W)``, the strip.
    begin, end
        Flat indices in the strip, ascending, half open.
    """
    if not len(begin):
        return np.empty(0, dtype=np.int64)
    borders = np.stack([begin, end], axis=1).ravel()
    if borders[-1] == pixels.size:
        borders = borders[:-1]
    # Every other stretch is between two runs; it is left out again.
    found: Ints = ufunc.reduceat(pixels.ravel(), borders, dtype=np.int64)[::2]
    return found


def paint_runs(values: NDArray[np.uint8], begin: Ints, end: Ints, size: int) -> NDArray[np.uint8]:
    """Pixels of a strip of so many, 0 between the runs; arguments as for `over_runs`."""
    borders = np.concatenate([[0], np.stack([begin, end], axis=1).ravel(), [size]])
    colours = np.zeros(len(borders) - 1, dtype=np.uint8)
    colours[1::2] = values
    return np.repeat(colours, np.diff(borders))
