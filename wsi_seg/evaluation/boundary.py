"""Owns distances between outlines: Hausdorff 95 and surface Dice, strip by strip.

The outline of a class consists of its pixels with a 4-neighbour of another class or beyond the
slide; pixels to ignore do not count as another class. Distances are measured between pixel centres.
They are exact up to a reach and infinite beyond it, so that memory holds only a strip and its
surroundings.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.evaluation.pairing import PredictionTruthStrip

# Largest distance that is measured.
REACH_PX = 512

# Squared distance of pixels beyond the reach.
BEYOND = 1 << 62

# Added to squared tolerances, because a tolerance in um was divided.
_EPSILON_PX2 = 1e-9

Points = NDArray[np.int32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Histograms of the distances from each pixel of one outline to the other outline.

    Parameters
    ----------
    there, back
        ``(n, 2)`` int64, from prediction to truth and from truth to prediction: ascending squared
        distances in px², and their pixel counts; `BEYOND` is the distance beyond the reach.
    """

    there: Ints
    back: Ints

    def __add__(self, other: "Distances") -> "Distances":
        """Pool the distances of two slides."""
        return Distances(_merged(self.there, other.there), _merged(self.back, other.back))

    def hausdorff(self, quantile: float = 0.95) -> float | None:
        """Return the larger of the two directed quantiles, in pixels.

        Quantiles are interpolated linearly as in `numpy.quantile`. The result is 0 if both outlines
        are empty, and None if only one is empty or the distance is beyond the reach.
        """
        if not len(self.there) and not len(self.back):
            return 0.0
        both = [_quantile(side, quantile) for side in (self.there, self.back)]
        return None if None in both else max(value for value in both if value is not None)

    def surface_dice(self, tolerance_px: float) -> float:
        """Return the fraction of both outlines within a tolerance of the other; 1 if empty."""
        squared, counts = np.concatenate([self.there, self.back]).T
        total, limit = int(counts.sum()), min(tolerance_px**2 + _EPSILON_PX2, BEYOND - 1)
        return int(counts[squared <= limit].sum()) / total if total else 1.0


def _merged(one: Ints, other: Ints) -> Ints:
    """Add two histograms of ascending distances."""
    squared, counts = np.concatenate([one, other]).reshape(-1, 2).T
    found, place = np.unique(squared, return_inverse=True)
    total = np.zeros(len(found), dtype=np.int64)
    np.add.at(total, place, counts)
    return np.stack([found, total], axis=1)


def _quantile(side: Ints, quantile: float) -> float | None:
    squared, counts = side.T
    if not len(counts):
        return None
    cumulated = counts.cumsum()
    last = int(cumulated[-1]) - 1
    place = last * quantile
    low, high = (
        int(squared[np.searchsorted(cumulated, at, side="right")])
        for at in (int(place), min(int(place) + 1, last))
    )
    if high == BEYOND:
        return None
    near, far = low**0.5, high**0.5
    return float(near + (far - near) * (place - int(place)))


@dataclass(slots=True)
class _Rows:
    """Outline pixels ``(n, 2)`` y, x of some rows, by class id and whether they are true."""

    y: int
    y_end: int
    points: dict[tuple[int, bool], Points] = field(default_factory=dict)


class Outlines:
    """Measures distances between outlines in strips from top to bottom.

    Parameters
    ----------
    classes
        Classes of the ids.
    reach_px
        Largest distance that is measured.
    """

    def __init__(self, classes: ClassTable, *, reach_px: int = REACH_PX) -> None:
        self._ids = [entry.id for entry in classes]
        self._names = {entry.id: entry.name for entry in classes}
        self._reach = reach_px
        self._before: PredictionTruthStrip | None = None
        self._above: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._near: deque[_Rows] = deque()
        self._waiting: deque[_Rows] = deque()
        size = reach_px**2 + 2
        self._sums = {
            (entry.id, true): np.zeros(size, dtype=np.int64)
            for entry in classes
            for true in (False, True)
        }

    def add(self, strip: PredictionTruthStrip) -> None:
        """Add the next strip."""
        if self._before is not None:
            self._outline(self._before, strip)
        self._before = strip

    def distances(self) -> dict[str, Distances]:
        """Return the distances by class name, after all strips were added."""
        if self._before is not None:
            self._outline(self._before, None)
            self._before = None
        while self._waiting:
            self._measure(self._waiting.popleft())
        return {
            self._names[number]: Distances(
                _occurring(self._sums[number, False]), _occurring(self._sums[number, True])
            )
            for number in self._ids
        }

    def _outline(self, strip: PredictionTruthStrip, below: PredictionTruthStrip | None) -> None:
        """Find the outlines of a strip, given its lower neighbour."""
        height = len(strip.found)
        rows = _Rows(strip.y, strip.y + height)
        found, drawn = (np.pad(ids, 1) for ids in (strip.found, strip.true))
        if self._above is not None:
            found[0, 1:-1], drawn[0, 1:-1] = self._above
        if below is not None:
            found[-1, 1:-1], drawn[-1, 1:-1] = below.found[0], below.true[0]
        for true, framed in enumerate((found, drawn)):
            for number in self._ids:
                # At pixels to ignore, it is unknown whether an object ends.
                edge = _edge(framed == number, (framed == number) | (drawn == IGNORE)) & strip.valid
                y, x = np.nonzero(edge)
                points = np.stack([y + strip.y, x], axis=1).astype(np.int32)
                rows.points[number, bool(true)] = points
        self._above = (strip.found[-1], strip.true[-1])
        self._near.append(rows)
        self._waiting.append(rows)
        # A strip is measured once all rows within reach below it were added.
        while self._waiting and self._waiting[0].y_end + self._reach <= rows.y_end:
            self._measure(self._waiting.popleft())

    def _measure(self, rows: _Rows) -> None:
        while self._near and self._near[0].y_end + self._reach < rows.y:
            self._near.popleft()
        for (number, true), points in rows.points.items():
            if not len(points):
                continue
            others = [
                near.points[number, not true]
                for near in self._near
                if near.y < rows.y_end + self._reach
            ]
            self._sums[number, true] += _squares(points, np.concatenate(others), self._reach)


def _edge(own: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return own pixels with a 4-neighbour that is not inside, without the padding of one pixel."""
    deep = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    edge: NDArray[np.bool_] = own[1:-1, 1:-1] & ~deep
    return edge


def _occurring(counts: Ints) -> Ints:
    """Convert counts of all squared distances, the last beyond the reach, to a histogram."""
    squared = np.flatnonzero(counts)
    kept = counts[squared]
    squared[squared == len(counts) - 1] = BEYOND
    return np.stack([squared, kept], axis=1)


def _squares(points: Points, others: Points, reach: int) -> Ints:
    """Count points by squared distance to the nearest other; the last is beyond the reach."""
    size = reach**2 + 2
    if not len(others):
        counts = np.zeros(size, dtype=np.int64)
        counts[-1] = len(points)
        return counts
    distance, _ = KDTree(others).query(points, distance_upper_bound=reach + 0.5)
    squared = np.where(np.isfinite(distance), np.rint(np.square(distance)), size - 1)
    return np.bincount(np.minimum(squared, size - 1).astype(np.int64), minlength=size)
