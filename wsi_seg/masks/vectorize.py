"""Owns label maps to polygons, strip by strip: borders between strips leave no trace.

Polygons follow pixel borders, so all coordinates are whole numbers until the end and unions are
exact. Memory holds one strip and the polygons that still touch its lower border.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_seg.masks.borders import trace

Values = NDArray[np.int64]
Polygons = NDArray[np.object_]
Strip = tuple[int, NDArray[np.uint8] | NDArray[np.int32]]


@dataclass(slots=True, eq=False)
class _Open:
    """Object that reaches the lower border of the last strip, in the pieces seen so far."""

    value: int
    pieces: list[Polygon] = field(default_factory=list)
    below: list[Polygon] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Part of an object in one strip, and whether it reaches the strip's borders."""

    value: int
    polygon: Polygon
    top: bool
    bottom: bool


def vectorize(strips: Iterable[Strip]) -> Iterator[tuple[int, Polygon]]:
    """Outline the objects of a label map that arrives in strips.

    Parameters
    ----------
    strips
        ``(first row, (h, W) uint8 or int32)`` from top to bottom, without gaps.

    Yields
    ------
    value : int
        Class id of the object, never 0.
    polygon : Polygon
        Valid polygon with holes, ``(x, y)`` in pixels of the label map, along pixel borders. Pixels
        that touch at a corner only belong to different objects.
    """
    for values, polygons in vectorize_strips(strips):
        yield from zip(values.tolist(), polygons, strict=True)


def vectorize_strips(strips: Iterable[Strip]) -> Iterator[tuple[Values, Polygons]]:
    """Outline the objects of a label map as `vectorize` does, those of a strip at once.

    Parameters
    ----------
    strips
        See `vectorize`.

    Yields
    ------
    values : NDArray[np.int64]
        ``(n,)`` class ids of the objects that end in a strip.
    polygons : NDArray[np.object_]
        ``(n,)`` their polygons.

    Examples
    --------
    >>> rows = np.array([[1, 0, 2]], np.uint8)
    >>> [values.tolist() for values, _ in vectorize_strips([(0, rows)]) if len(values)]
    [[1, 2]]
    """
    waiting: list[_Open] = []
    for y, rows in strips:
        values, pieces = trace(rows, top=y)
        bounds = shapely.bounds(pieces).reshape(-1, 4)
        bottom = y + len(rows)
        at_top, at_bottom = bounds[:, 1] == y, bounds[:, 3] == bottom
        within = ~(at_top | at_bottom)
        yield values[within], pieces[within]
        edge = np.flatnonzero(~within)
        fresh = [
            _Piece(int(values[n]), pieces[n], top=bool(at_top[n]), bottom=bool(at_bottom[n]))
            for n in edge
        ]
        waiting, closed = _join(waiting, fresh, y)
        yield _closed(closed)
    yield _closed(waiting)


def _join(waiting: list[_Open], fresh: list[_Piece], y: int) -> tuple[list[_Open], list[_Open]]:
    """Join pieces at a strip's borders to what waits above row ``y``; part open from closed."""
    upper = [(owner, piece) for owner in waiting for piece in owner.below]
    owners = _Groups(len(waiting) + len(fresh))
    numbers = {id(owner): number for number, owner in enumerate(waiting)}
    at_top = [n for n, piece in enumerate(fresh) if piece.top]
    for above, below in _touching(
        [piece for _, piece in upper], [fresh[n].polygon for n in at_top], y
    ):
        owner, number = upper[above][0], at_top[below]
        if owner.value == fresh[number].value:
            owners.unite(numbers[id(owner)], len(waiting) + number)
    joined: dict[int, _Open] = {}
    for number, owner in enumerate(waiting):
        group = joined.setdefault(owners.root(number), _Open(owner.value))
        group.pieces += owner.pieces
    for number, piece in enumerate(fresh):
        group = joined.setdefault(owners.root(len(waiting) + number), _Open(piece.value))
        group.pieces.append(piece.polygon)
        if piece.bottom:
            group.below.append(piece.polygon)
    still = [group for group in joined.values() if group.below]
    return still, [group for group in joined.values() if not group.below]


def _touching(upper: list[Polygon], lower: list[Polygon], y: int) -> Iterator[tuple[int, int]]:
    """Pairs of polygons that share a stretch of the row border ``y``, not just a corner."""
    if not upper or not lower:
        return
    first, which = _stretches([*upper, *lower], y)
    # Sweep along the border: stretches of one side never overlap, so two are open at most.
    order = np.lexsort((first[:, 1], first[:, 0]))
    last: dict[bool, tuple[float, int]] = {}
    for index in order:
        start, end = first[index]
        owner = int(which[index])
        is_above = owner < len(upper)
        other = last.get(not is_above)
        if other is not None and other[0] > start:
            pair = (owner, other[1]) if is_above else (other[1], owner)
            yield pair[0], pair[1] - len(upper)
        kept = last.get(is_above)
        if kept is None or end > kept[0]:
            last[is_above] = (end, owner)


def _stretches(
    polygons: Sequence[Polygon], y: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Stretches ``(n, 2)``, x and x_end, of borders on the row border ``y``; and their polygons."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    on = points[:, 1] == y
    flat = np.flatnonzero(on[:-1] & on[1:] & (ring[:-1] == ring[1:]))
    ends = np.stack([points[flat, 0], points[flat + 1, 0]], axis=1)
    return np.sort(ends, axis=1), owner[ring[flat]]


class _Groups:
    """Disjoint sets of numbers (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def unite(self, a: int, b: int) -> None:
        self._parent[self.root(b)] = self.root(a)


def _closed(groups: list[_Open]) -> tuple[Values, Polygons]:
    """Give one polygon of all pieces of each object."""
    values = np.array([group.value for group in groups], dtype=np.int64)
    polygons = np.empty(len(groups), dtype=object)
    polygons[:] = [_whole(group.pieces) for group in groups]
    return values, polygons


def _whole(pieces: list[Polygon]) -> Polygon:
    if len(pieces) == 1:
        return pieces[0]
    union = shapely.simplify(shapely.union_all(pieces), 0)
    assert isinstance(union, Polygon), "pieces that share a border make one polygon"
    return union
