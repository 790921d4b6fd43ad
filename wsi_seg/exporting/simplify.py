"""Owns outlines with fewer vertices: no pixel changes sides, and no two outlines cross.

Outlines along pixel borders are cut into stretches at nodes, the corners where more than two pixel
borders meet. The two objects at the sides of a stretch share it whole, so drawing it by itself
changes both alike. It is drawn through the middles of its straight runs, which makes lines of
stairs and stays within `LEAST_PX` of the borders; then vertices are left out (Douglas and Peucker)
as far as it stays within half a pixel. So near to a border there is no pixel's centre, and no other
stretch but those that begin where this one ends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.masks.vectorize import Strip

# How far outlines are from pixel borders in pixels, at least and at most.
LEAST_PX = 1 / 3
MOST_PX = 0.499

# From a corner, a line to the middle of a run of one pixel begins so many half pixels away at most.
# With x of them it stays within x / (2 x + 2) pixels of the borders, here LEAST_PX.
_REACH = 2

# More than there are pixels on a line, so that a line and a place on it are one number.
_LINE = 1 << 32

Ints = NDArray[np.int64]


class Nodes:
    """Corners of a label map where more than two pixel borders meet, noted while strips pass.

    The corners of the slide are nodes, too.

    Parameters
    ----------
    extent
        Size of the label map.
    """

    def __init__(self, extent: Extent) -> None:
        self._row = extent.width + 1  # corners in a row
        self._slide = np.array([0, extent.width, self._row * extent.height,
                                self._row * (extent.height + 1) - 1])  # fmt: skip
        self._above = np.zeros(extent.width + 2, dtype=np.uint8)
        self._parts: list[tuple[int, Ints]] = []

    def watch(self, strips: Iterable[Strip]) -> Iterator[Strip]:
        """Pass strips on; nodes of a strip are known before it is passed on."""
        bottom = 0
        for y, rows in strips:
            bottom = y + len(rows)
            self._note(y, np.pad(rows, ((0, 0), (1, 1))))
            yield y, rows
        self._note(bottom, np.zeros((1, self._row + 1), dtype=np.uint8))  # what is below the slide

    def _note(self, y: int, rows: NDArray[Any]) -> None:
        """Note the nodes at the upper corners of rows that are padded at both sides."""
        if rows.any() or self._above.any():
            both = np.concatenate([self._above[None], rows])
            upper, lower = both[:-1], both[1:]
            count = (upper[:, 1:] != upper[:, :-1]).view(np.uint8)
            count = count + (lower[:, 1:] != lower[:, :-1])
            sideways = upper != lower
            count += sideways[:, 1:]
            count += sideways[:, :-1]
            found = np.flatnonzero(count.ravel() > 2)
            if len(found):
                self._parts.append((y + len(rows), found + y * self._row))
        self._above = rows[-1]

    def on(self, xy: Ints, step: Ints, length: Ints) -> tuple[Ints, Ints]:
        """Find the nodes on sides; the last corner of a side belongs to the next one.

        Parameters
        ----------
        xy, step
            ``(s, 2)`` where sides begin, and one step of a pixel along each.
        length
            ``(s,)`` number of steps.

        Returns
        -------
        NDArray[np.int64]
            ``(n,)`` side of each node that is on one; a node may be on several.
        NDArray[np.int64]
            ``(n,)`` its steps from where the side begins.
        """
        low, high = (self._row * (f(xy[:, 1]) + n) for f, n in ((np.min, 0), (np.max, 1)))
        parts = [part for end, part in self._parts if end * self._row >= low and part[0] < high]
        nodes = np.stack(np.divmod(np.concatenate([self._slide, *parts]), self._row)[::-1])
        sides, steps = [], []
        for along, line in ((0, 1), (1, 0)):
            own = np.flatnonzero(step[:, along])
            keys = np.unique(nodes[line] * _LINE + nodes[along])
            start = xy[own, line] * _LINE + xy[own, along]
            end = start + step[own, along] * (length[own] - 1)
            begin = np.searchsorted(keys, np.minimum(start, end))
            count = np.searchsorted(keys, np.maximum(start, end), side="right") - begin
            which, number = _counted(count)
            sides.append(own[which])
            steps.append(np.abs(keys[begin[which] + number] - start[which]))
        return np.concatenate(sides), np.concatenate(steps)


def simplify(
    polygons: NDArray[np.object_], nodes: Nodes, tolerance_px: float = MOST_PX
) -> NDArray[np.object_]:
    """Leave out vertices of outlines along pixel borders.

    Parameters
    ----------
    polygons
        ``(n,)`` polygons with whole coordinates in pixels of the label map.
    nodes
        Of the label map, down to the lower ends of the polygons.
    tolerance_px
        How far outlines may be from the borders of pixels: `LEAST_PX` to `MOST_PX`; 0 leaves them
        there.

    Returns
    -------
    NDArray[np.object_]
        ``(n,)`` valid polygons, which contain the same centres of pixels.
    """
    if not tolerance_px or not len(polygons):
        return polygons
    rings, owner = shapely.get_rings(polygons, return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True)
    runs = _Runs.of(np.rint(corners[~closing]).astype(np.int64), ring[~closing], nodes)
    points, ring = _Stretches.of(*runs.middles()).simplified(2 * (tolerance_px - LEAST_PX))
    drawn = np.asarray(shapely.linearrings(points / 2, indices=ring))
    return np.asarray(shapely.polygons(drawn, indices=owner))


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Straight runs of rings, one after the other; nodes inside of straight sides part runs.

    Parameters
    ----------
    xy
        ``(r, 2)`` where each begins, in pixels.
    ring
        ``(r,)`` its ring.
    node
        ``(r,)`` whether it begins at a node.
    """

    xy: Ints
    ring: Ints
    node: NDArray[np.bool_]

    @classmethod
    def of(cls, xy: Ints, ring: Ints, nodes: Nodes) -> "_Runs":
        """Part rings, given by their vertices, where they turn and at nodes."""
        follow = _following(ring)
        run = xy[follow] - xy
        length = np.abs(run).sum(axis=1)
        step = np.sign(run)
        before = np.empty_like(step)
        before[follow] = step
        corner = np.flatnonzero((step != before).any(axis=1)) * _LINE
        side, within = nodes.on(xy, step, length)
        node = np.sort(side * _LINE + within)
        place = np.searchsorted(corner, node)
        at_corner = corner[np.minimum(place, len(corner) - 1)] == node
        between = place[~at_corner]
        is_node = np.zeros(len(corner), dtype=np.bool_)
        is_node[place[at_corner]] = True
        places = np.insert(corner, between, node[~at_corner])
        which = places // _LINE
        within = (places % _LINE).astype(np.int64, copy=False)
        begin = np.add(xy[which], step[which] * within[:, None], dtype=np.int64)
        return cls(begin, ring[which], np.insert(is_node, between, True))

    def middles(self) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Draw rings through the middles of their runs.

        Returns
        -------
        NDArray[np.int64]
            ``(v, 2)`` vertices in half pixels. Nodes are kept, and corners of two runs of two
            pixels or more. Long runs have a vertex near each end in place of one in the middle.
        NDArray[np.int64]
            ``(v,)`` ring of each.
        NDArray[np.bool_]
            ``(v,)`` which are nodes.
        """
        follow = _following(self.ring)
        start = 2 * self.xy
        end = start[follow]
        length = np.abs(end - start).sum(axis=1)  # in half pixels
        previous = np.empty_like(length)
        previous[follow] = length
        long = length > 2 * _REACH
        inward = np.sign(end - start) * _REACH
        # What each run gives: its begin, a first vertex, a second one.
        wanted = np.empty((len(start), 3), dtype=np.bool_)
        wanted[:, 0] = self.node | ((length > 2) & (previous > 2))
        wanted[:, 1], wanted[:, 2] = True, long
        points = np.empty((*wanted.shape, 2), dtype=np.int64)
        points[:, 0], points[:, 2] = start, end - inward
        points[:, 1] = np.where(long[:, None], start + inward, (start + end) // 2)
        is_node = np.zeros_like(wanted)
        is_node[:, 0] = self.node
        ring = np.repeat(self.ring, wanted.sum(axis=1))
        return points[wanted], ring, is_node[wanted]


def _following(ring: Ints) -> Ints:
    """Place of the next vertex of the same ring, for vertices of rings one after the other."""
    start = np.flatnonzero(np.append(True, ring[1:] != ring[:-1]))
    following = np.arange(1, len(ring) + 1)
    following[np.append(start[1:], len(ring)) - 1] = start
    return following


@dataclass(frozen=True, slots=True, eq=False)
class _Stretches:
    """Rings cut into stretches that their neighbours cut alike.

    Parameters
    ----------
    xy
        ``(v, 2)`` vertices of rings one after the other, each from its first cut on.
    begin, end
        ``(s,)`` places of the first and the last vertex of each stretch.
    length
        ``(s,)`` number of vertices, the last one left out.
    ring
        ``(s,)`` number of the ring.
    """

    xy: Ints
    begin: Ints
    end: Ints
    length: Ints
    ring: Ints

    @classmethod
    def of(cls, xy: Ints, ring: Ints, node: NDArray[np.bool_]) -> "_Stretches":
        """Cut rings at nodes; a stretch that ends where it begins, at its outermost vertices."""
        key = _keys(xy)
        start = np.flatnonzero(np.append(True, ring[1:] != ring[:-1]))
        size = np.diff(np.append(start, len(ring)))
        without = np.maximum.reduceat(node, start) == 0
        lowest = np.minimum.reduceat(key, start)
        cut = node | (without[ring] & (key == lowest[ring]))
        places = np.flatnonzero(cut)
        first = places[np.searchsorted(places, start)] - start
        within = np.arange(len(ring)) - start[ring]
        turned = start[ring] + (within + first[ring]) % size[ring]
        whole = cls._cut(xy[turned], ring, start, cut[turned])
        key = key[turned]
        loop = key[whole.begin] == key[whole.end]
        low, high = (f.reduceat(key, whole.begin) for f in (np.minimum, np.maximum))
        owner = np.repeat(np.arange(len(loop)), whole.length)
        more = loop[owner] & ((key == low[owner]) | (key == high[owner]))
        return cls._cut(xy[turned], ring, start, cut[turned] | more)

    @classmethod
    def _cut(cls, xy: Ints, ring: Ints, start: Ints, cut: NDArray[np.bool_]) -> "_Stretches":
        begin = np.flatnonzero(cut)
        end = np.append(begin[1:], len(ring))
        length = end - begin
        # The last stretch of a ring ends where its first one begins.
        last = np.append(ring[begin[1:]] != ring[begin[:-1]], True)
        end[last] = start[ring[begin[last]]]
        return cls(xy, begin, end, length, ring[begin])

    def simplified(self, tolerance_px: float) -> tuple[NDArray[np.float64], Ints]:
        """Vertices that are left, and the number of the ring of each."""
        key = _keys(self.xy)
        # Both neighbours walk a stretch in the same direction, so ties fall alike.
        back = key[self.begin] > key[self.end]
        line, step = _counted(self.length + 1)
        step = np.where(back[line], self.length[line] - step, step)
        place = np.where(step < self.length[line], self.begin[line] + step, self.end[line])
        lines = shapely.linestrings(self.xy[place].astype(np.float64), indices=line)
        lines = shapely.simplify(lines, tolerance_px, preserve_topology=False)
        points = shapely.get_coordinates(lines)
        count = np.asarray(shapely.get_num_coordinates(lines), dtype=np.int64)
        line, step = _counted(count - 1)  # the next stretch has the last vertex
        step = np.where(back[line], count[line] - 1 - step, step)
        return points[(np.cumsum(count) - count)[line] + step], self.ring[line]


def _keys(xy: Ints) -> Ints:
    """Numbers that order vertices by x, then by y."""
    keys: Ints = xy[:, 0] * _LINE + xy[:, 1]
    return keys


def _counted(count: Ints) -> tuple[Ints, Ints]:
    """Group of each member, and its number in the group, of groups of these sizes."""
    group = np.repeat(np.arange(len(count)), count)
    return group, np.arange(len(group)) - (np.cumsum(count) - count)[group]
