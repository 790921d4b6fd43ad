"""Owns connected components of a label map, found from row runs strip by strip.

Runs are connected if they overlap a run of the row above (4-connectivity), so a strip's border is a
row border like any other. Every component of a strip gets a provisional label; labels that later
strips connect are merged to one object. Memory holds one strip, and a few integers per label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of equal pixels within rows, in raster order.

    Parameters
    ----------
    begin, end
        ``(n,)`` flat indices ``y * width + x`` in the whole label map, half open.
    value
        ``(n,)`` uint8 class id of the run.
    label
        ``(n,)`` provisional label of the run's component; see `ConnectedComponents.objects`.
    shared
        ``(n,)`` number of pixels of the run that have the same value as the pixel above.
    """

    begin: Ints
    end: Ints
    value: NDArray[np.uint8]
    label: Ints
    shared: Ints

    @property
    def length(self) -> Ints:
        """``(n,)`` lengths in pixels."""
        return self.end - self.begin

    def after(self, index: int) -> "Runs":
        """Return the runs from an index on."""
        return Runs(
            self.begin[index:],
            self.end[index:],
            self.value[index:],
            self.label[index:],
            self.shared[index:],
        )


def find_runs(rows: NDArray[np.uint8], y: int, *, background: bool) -> tuple[Ints, Ints]:
    """Find the runs of equal pixels in a strip.

    Parameters
    ----------
    rows
        ``(h, W)`` uint8 class ids.
    y
        Index of the strip's first row.
    background
        Whether to include runs of 0.

    Returns
    -------
    begin, end : NDArray[np.int64]
        ``(n,)`` flat indices ``y * width + x`` in the whole label map, half open.
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
        Whether pixels of 0 form objects, too, as finding holes requires.
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
        """Add the next strip ``(h, W)`` uint8, whose first row is ``y``, and return its runs."""
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
        """Return the object ``(n,)`` of each provisional label.

        Objects are numbered 0, 1, 2 ... in raster order of their first pixels, independently of the
        height of strips.
        """
        joins = np.concatenate([*self._joins, np.empty((0, 2), dtype=np.int64)])
        return _groups(self._labels, joins[:, 0], joins[:, 1])


def overlapping(begin: Ints, end: Ints, other_begin: Ints, other_end: Ints) -> tuple[Ints, Ints]:
    """Find all pairs of overlapping runs of two sets, each in raster order.

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
    """Find the connected groups of ``count`` nodes with edges ``(a, b)``, ordered by first node."""
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
    """Reduce the pixels of each run.

    Parameters
    ----------
    ufunc
        Binary ufunc, such as ``np.add``.
    pixels
        ``(h, W)`` pixels of the strip.
    begin, end
        ``(n,)`` flat indices in the strip, ascending, half open.

    Returns
    -------
    NDArray[np.int64]
        ``(n,)`` one value per run.
    """
    if not len(begin):
        return np.empty(0, dtype=np.int64)
    borders = np.stack([begin, end], axis=1).ravel()
    if borders[-1] == pixels.size:
        borders = borders[:-1]
    # Every other segment is a gap between two runs.
    found: Ints = ufunc.reduceat(pixels.ravel(), borders, dtype=np.int64)[::2]
    return found


def paint_runs(values: NDArray[np.uint8], begin: Ints, end: Ints, size: int) -> NDArray[np.uint8]:
    """Decode runs with ``(n,)`` values to ``(size,)`` pixels, 0 between runs; see `over_runs`."""
    borders = np.concatenate([[0], np.stack([begin, end], axis=1).ravel(), [size]])
    colours = np.zeros(len(borders) - 1, dtype=np.uint8)
    colours[1::2] = values
    return np.repeat(colours, np.diff(borders))
