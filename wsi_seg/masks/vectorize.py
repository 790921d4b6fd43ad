"""Owns vectorizing label maps to polygons strip by strip, without seams between strips.

Polygons follow pixel borders, so all coordinates are whole numbers and unions are exact. Memory
holds one strip and the polygons that touch its lower border.
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
    """Object that reaches the lower border of the last strip, with its pieces so far."""

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
    """Outline the objects of a label map that is given in strips.

    Parameters
    ----------
    strips
        First row and pixels of each strip, ``(H, W)`` uint8 or int32, from top to bottom without
        gaps.

    Yields
    ------
    value : int
        Class id of the object, never 0.
    polygon : Polygon
        Valid polygon with holes, ``(x, y)`` in pixels of the label map, along pixel borders. Pixels
        that only touch at a corner belong to different objects.
    """
    for values, polygons in vectorize_strips(strips):
        yield from zip(values.tolist(), polygons, strict=True)


def vectorize_strips(strips: Iterable[Strip]) -> Iterator[tuple[Values, Polygons]]:
    """Outline the objects of a label map like `vectorize`, in one batch per strip.

    Parameters
    ----------
    strips
        See `vectorize`.

    Yields
    ------
    values : NDArray[np.int64]
        Class ids of the objects that end in a strip, ``(n,)``.
    polygons : NDArray[np.object_]
        Their polygons, ``(n,)``.

    Examples
    --------
    >>> rows = np.array([[1, 0, 2]], np.uint8)
    >>> [values.tolist() for values, _ in vectorize_strips([(0, rows)]) if len(values)]
    [[1, 2]]
    """
    opened: list[_Open] = []
    for y, rows in strips:
        values, polygons = trace(rows, top=y)
        bounds = shapely.bounds(polygons).reshape(-1, 4)
        bottom = y + len(rows)
        at_top, at_bottom = bounds[:, 1] == y, bounds[:, 3] == bottom
        within = ~(at_top | at_bottom)
        yield values[within], polygons[within]
        edge = np.flatnonzero(~within)
        pieces = [
            _Piece(int(values[n]), polygons[n], top=bool(at_top[n]), bottom=bool(at_bottom[n]))
            for n in edge
        ]
        opened, closed = _join(opened, pieces, y)
        yield _closed(closed)
    yield _closed(opened)


def _join(opened: list[_Open], pieces: list[_Piece], y: int) -> tuple[list[_Open], list[_Open]]:
    """Join pieces to the open objects above row ``y``; return open and closed objects."""
    upper = [(owner, piece) for owner in opened for piece in owner.below]
    owners = _Groups(len(opened) + len(pieces))
    numbers = {id(owner): number for number, owner in enumerate(opened)}
    at_top = [n for n, piece in enumerate(pieces) if piece.top]
    for above, below in _touching(
        [piece for _, piece in upper], [pieces[n].polygon for n in at_top], y
    ):
        owner, number = upper[above][0], at_top[below]
        if owner.value == pieces[number].value:
            owners.unite(numbers[id(owner)], len(opened) + number)
    joined: dict[int, _Open] = {}
    for number, owner in enumerate(opened):
        group = joined.setdefault(owners.root(number), _Open(owner.value))
        group.pieces += owner.pieces
    for number, piece in enumerate(pieces):
        group = joined.setdefault(owners.root(len(opened) + number), _Open(piece.value))
        group.pieces.append(piece.polygon)
        if piece.bottom:
            group.below.append(piece.polygon)
    still = [group for group in joined.values() if group.below]
    return still, [group for group in joined.values() if not group.below]


def _touching(upper: list[Polygon], lower: list[Polygon], y: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of polygons that share a segment of the row border ``y``, not just a corner."""
    if not upper or not lower:
        return
    spans, which = _spans([*upper, *lower], y)
    # Sweep along the border: spans of one side never overlap, so at most two are open.
    order = np.lexsort((spans[:, 1], spans[:, 0]))
    last: dict[bool, tuple[float, int]] = {}
    for index in order:
        start, end = spans[index]
        owner = int(which[index])
        is_above = owner < len(upper)
        other = last.get(not is_above)
        if other is not None and other[0] > start:
            pair = (owner, other[1]) if is_above else (other[1], owner)
            yield pair[0], pair[1] - len(upper)
        kept = last.get(is_above)
        if kept is None or end > kept[0]:
            last[is_above] = (end, owner)


def _spans(polygons: Sequence[Polygon], y: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the spans ``(n, 2)`` (x, x_end) of outlines on the row border ``y``, and whose."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    on = points[:, 1] == y
    flat = np.flatnonzero(on[:-1] & on[1:] & (ring[:-1] == ring[1:]))
    ends = np.stack([points[flat, 0], points[flat + 1, 0]], axis=1)
    return np.sort(ends, axis=1), owner[ring[flat]]


class _Groups:
    """Disjoint sets of integers (union-find)."""

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
    """Return the class ids of objects, and the union of the pieces of each."""
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
