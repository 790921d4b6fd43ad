"""Owns tracing the outlines of all objects of an array along pixel borders, vectorized.

Each pixel corner is visited once, whatever the number of objects. Each turn of a border is a vertex
with one horizontal and one vertical run. Runs on one line are disjoint, so sorting the vertices
along each line pairs the ends of runs. Following the runs gives the rings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Values = NDArray[np.uint8] | NDArray[np.int32]


def trace(values: Values, *, top: int = 0) -> tuple[Ints, NDArray[np.object_]]:
    """Outline the objects of an array along pixel borders.

    Parameters
    ----------
    values
        ``(H, W)`` uint8 or int32; 0 is background. Pixels of one value that share a side belong to
        one object.
    top
        Row of the label map at which the array starts.

    Returns
    -------
    NDArray[np.int64]
        Value of each object, ``(n,)``, in the order of their first pixels.
    NDArray[np.object_]
        Valid polygons with holes, ``(n,)``, coordinates ``(x, y)`` in pixels. Each ring starts at
        the leftmost of its topmost vertices, and has vertices only where it turns.

    Examples
    --------
    >>> values, polygons = trace(np.array([[1, 1, 0], [1, 0, 2]], np.uint8))
    >>> values.tolist(), shapely.area(polygons).tolist()
    ([1, 2], [3.0, 1.0])
    """
    turns = _Turns.of(np.pad(values, 1))
    if not len(turns.x):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=object)
    following, upwards = turns.linked()
    ring, first = _rings(following)
    owner = _owners(values, turns, ring, first, upwards)[ring]
    # A ring that touches itself is not valid: swapping successors there makes two rings of it.
    one, other = _touching(turns, owner)
    following[one], following[other] = following[other], following[one]
    if len(one):
        ring, first = _rings(following)
    inner = turns.concave.copy()
    inner[one] = inner[other] = True
    # Sort rings by the first pixel of their object, the outer ring first.
    order = np.lexsort((first, inner[first], owner[first]))
    first, size = first[order], np.bincount(ring)[order]
    along = _walk(following, first)
    points = np.stack([turns.x[along], turns.y[along] + top], axis=1).astype(np.float64)
    rings = np.asarray(shapely.linearrings(points, indices=np.repeat(np.arange(len(size)), size)))
    objects, which = np.unique(owner[first], return_inverse=True)
    return turns.value[objects], np.asarray(shapely.polygons(rings, indices=which))


@dataclass(frozen=True, slots=True, eq=False)
class _Turns:
    """Vertices where borders turn, in row-major order; one per object that turns at a corner.

    Parameters
    ----------
    x, y
        Position of the corner, ``(t,)``.
    pixel
        Which of the four pixels at the corner the border turns around or within, ``(t,)``.
    concave
        Whether the object also has the neighbours of that pixel at the corner, ``(t,)``.
    value
        Value of the object, ``(t,)``.
    """

    x: Ints
    y: Ints
    pixel: Ints
    concave: Bools
    value: Ints

    @classmethod
    def of(cls, padded: NDArray[Any]) -> "_Turns":
        """Find the turns in an array that is padded with zeros."""
        sideways = padded[:, 1:] != padded[:, :-1]
        below = padded[1:] != padded[:-1]
        above, left = sideways[:-1], below[:, :-1]
        # A border ends here on one of the two lines, or four borders meet.
        turning = (above ^ sideways[1:]) | (left ^ below[:, 1:]) | (above & left)
        y, x = np.divmod(np.flatnonzero(turning), turning.shape[1])
        # First axis of the following arrays: upper left, upper right, lower left, lower right.
        pixels = np.stack([padded[y, x], padded[y, x + 1], padded[y + 1, x], padded[y + 1, x + 1]])
        upper, lower = pixels[0] == pixels[1], pixels[2] == pixels[3]
        left, right = pixels[0] == pixels[2], pixels[1] == pixels[3]
        falling, rising = pixels[0] != pixels[3], pixels[1] != pixels[2]
        own_row = np.stack([upper, upper, lower, lower])
        own_column = np.stack([left, right, left, right])
        concave = own_row & own_column & np.stack([falling, rising, rising, falling])
        convex = ~(own_row | own_column)
        corner, pixel = np.nonzero(((concave | convex) & (pixels != 0)).T)
        value = pixels[pixel, corner].astype(np.int64)
        return cls(x[corner], y[corner], pixel, concave[pixel, corner], value)

    def linked(self) -> tuple[Ints, "_Runs"]:
        """Return each vertex's successor, with the object on the right, and the vertical runs.

        For example, at a convex turn of the upper left pixel, its lower side comes from the left,
        and its right side from above.
        """
        right, lower = self.pixel & 1, self.pixel >> 1
        across, upwards = (
            _Runs.of(self.y, lower, self.x, right ^ self.concave),
            _Runs.of(self.x, right, self.y, lower ^ self.concave),
        )
        sideways = (right == lower) ^ self.concave
        return np.where(sideways, across.partner, upwards.partner), upwards


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Straight runs of borders in one direction.

    Parameters
    ----------
    key
        Sorted keys ``(t,)``: line, side, position on the line, and whether a run starts there.
    order
        Vertex of each key, ``(t,)``: start of a run, its end, start of the next run.
    partner
        Other end of each vertex's run, ``(t,)``.
    """

    key: Ints
    order: Ints
    partner: Ints

    @classmethod
    def of(cls, line: Ints, side: Ints, position: Ints, start: Ints) -> "_Runs":
        key = cls.keys(line, side, position, start)
        order = np.argsort(key)
        partner = np.empty_like(order)
        partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
        return cls(key[order], order, partner)

    @staticmethod
    def keys(line: Ints, side: Ints | int, position: Ints, start: Ints | int) -> Ints:
        # At one position, an end sorts before a start.
        return (line << 34) | (side << 33) | (position << 1) | start

    def through(self, line: Ints, side: int, position: Ints) -> Ints:
        """Return the start vertices of the runs that pass through these positions."""
        key = self.keys(line, side, position, 1)
        return self.order[np.searchsorted(self.key, key, side="right") - 1]


def _rings(following: Ints) -> tuple[Ints, Ints]:
    """Return the ring of each vertex, and the first vertex of each ring."""
    count, ring = connected_components(_graph(following), connection="strong")
    first = np.full(count, len(following))
    np.minimum.at(first, ring, np.arange(len(following)))
    return ring, first


def _graph(following: Ints) -> csr_array:
    count = len(following)
    ones = np.ones(count, dtype=np.int8)
    return csr_array((ones, following, np.arange(count + 1)), shape=(count, count))


def _owners(
    values: Values,
    turns: _Turns,
    ring: Ints,
    first: Ints,
    upwards: _Runs,
) -> Ints:
    """Return the object of each ring, as the first vertex of its outer ring.

    To the left of the pixel above a hole is another ring of the same object, which starts higher.
    """
    owner = np.arange(len(first))
    hole = np.flatnonzero(turns.concave[first])
    if len(hole):
        x, y = turns.x[first[hole]] - 1, turns.y[first[hole]] - 1  # of the pixel above
        rows, row = np.unique(y, return_inverse=True)
        some = values[rows]
        change = np.ones(some.shape, dtype=np.bool_)
        change[:, 1:] = some[:, 1:] != some[:, :-1]
        changes = np.flatnonzero(change)
        width = values.shape[1]
        border = changes[np.searchsorted(changes, row * width + x, side="right") - 1] % width
        owner[hole] = ring[upwards.through(border, 1, y)]
        while (up := owner[owner] != owner).any():
            owner[up] = owner[owner[up]]
    objects: Ints = first[owner]
    return objects


def _touching(turns: _Turns, owner: Ints) -> tuple[Ints, Ints]:
    """Return the pairs of vertices where an object touches itself at a corner."""
    pairs = []
    for offset in (1, 2, 3):  # a corner has at most four vertices
        here, there = slice(None, -offset), slice(offset, None)
        same = (
            (turns.x[here] == turns.x[there])
            & (turns.y[here] == turns.y[there])
            & (owner[here] == owner[there])
        )
        pairs.append(np.flatnonzero(same) + np.array([[0], [offset]]))
    one, other = np.concatenate(pairs, axis=1)
    return one, other


def _walk(following: Ints, first: Ints) -> Ints:
    """Return the vertices along the rings that start at ``first``, ring after ring."""
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    path = following.copy()
    path[before[first[:-1]]] = first[1:]
    along: Ints = breadth_first_order(_graph(path), first[0], return_predecessors=False)
    return along
