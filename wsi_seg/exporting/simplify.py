"""Owns simplifying outlines so that every pixel centre keeps its side and outlines do not cross.

Outlines along pixel borders are cut into stretches at nodes, the corners where more than two pixel
borders meet. The objects on both sides share the whole stretch, so simplifying it by itself changes
both in the same way. The stretch is first drawn through the midpoints of its straight runs, which
straightens staircases and stays within `MIN_PX` of the borders. Then Douglas-Peucker removes
vertices while the line stays within half a pixel. No pixel centre is that close to a border, and
neither is another stretch, except at a shared end point.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.masks.vectorize import Strip

# Smallest and largest tolerance: the distance of outlines from pixel borders, in pixels.
MIN_PX = 1 / 3
MAX_PX = 0.499

# Largest distance, in half pixels, from a corner to the start of a line towards the midpoint of a
# run of one pixel. At distance x, the line stays within x / (2 x + 2) pixels of the borders.
_REACH = 2

# More than the pixels of a row, so that line * _LINE + position is a unique key.
_LINE = 1 << 32

Ints = NDArray[np.int64]


class Nodes:
    """Corners of a label map where more than two pixel borders meet, collected from strips.

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
        """Yield strips unchanged, after collecting the nodes of each."""
        bottom = 0
        for y, rows in strips:
            bottom = y + len(rows)
            self._note(y, np.pad(rows, ((0, 0), (1, 1))))
            yield y, rows
        self._note(bottom, np.zeros((1, self._row + 1), dtype=np.uint8))  # below the slide

    def _note(self, y: int, rows: NDArray[Any]) -> None:
        """Collect the nodes at the upper corners of rows, which are padded on both sides."""
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
        """Find the nodes on straight sides; the last corner of a side belongs to the next side.

        Parameters
        ----------
        xy, step
            ``(s, 2)`` start points of sides, and their directions as steps of one pixel.
        length
            ``(s,)`` number of steps.

        Returns
        -------
        NDArray[np.int64]
            ``(n,)`` side of each node; a node on several sides is repeated.
        NDArray[np.int64]
            ``(n,)`` number of steps from the start of the side.
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
    polygons: NDArray[np.object_], nodes: Nodes, tolerance_px: float = MAX_PX
) -> NDArray[np.object_]:
    """Remove vertices of outlines along pixel borders.

    Parameters
    ----------
    polygons
        ``(n,)`` polygons with integer coordinates in pixels of the label map.
    nodes
        Nodes of the label map, at least down to the lower ends of the polygons.
    tolerance_px
        Largest distance of outlines from pixel borders, `MIN_PX` to `MAX_PX`; 0 keeps the
        outlines unchanged.

    Returns
    -------
    NDArray[np.object_]
        ``(n,)`` valid polygons that contain the same pixel centres.
    """
    if not tolerance_px or not len(polygons):
        return polygons
    rings, owner = shapely.get_rings(polygons, return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True)
    runs = _Runs.of(np.rint(corners[~closing]).astype(np.int64), ring[~closing], nodes)
    points, ring = _Stretches.of(*runs.middles()).simplified(2 * (tolerance_px - MIN_PX))
    drawn = np.asarray(shapely.linearrings(points / 2, indices=ring))
    return np.asarray(shapely.polygons(drawn, indices=owner))


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Straight runs of rings, one ring after the other; nodes within straight sides split runs.

    Parameters
    ----------
    xy
        ``(r, 2)`` start point of each run, in pixels.
    ring
        ``(r,)`` ring of each run.
    node
        ``(r,)`` whether the run begins at a node.
    """

    xy: Ints
    ring: Ints
    node: NDArray[np.bool_]

    @classmethod
    def of(cls, xy: Ints, ring: Ints, nodes: Nodes) -> "_Runs":
        """Split rings, given by their vertices, at turns and at nodes."""
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
        """Draw rings through the midpoints of their runs.

        Returns
        -------
        NDArray[np.int64]
            ``(v, 2)`` vertices in half pixels. Nodes are kept, and so are corners between two runs
            of two or more pixels. Long runs get a vertex near each end instead of a midpoint.
        NDArray[np.int64]
            ``(v,)`` ring of each vertex.
        NDArray[np.bool_]
            ``(v,)`` whether each vertex is a node.
        """
        follow = _following(self.ring)
        start = 2 * self.xy
        end = start[follow]
        length = np.abs(end - start).sum(axis=1)  # in half pixels
        previous = np.empty_like(length)
        previous[follow] = length
        long = length > 2 * _REACH
        inward = np.sign(end - start) * _REACH
        # Candidates of each run: its start point, a first vertex, a second vertex.
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
    """Return the index of the next vertex of the same ring, for concatenated rings."""
    start = np.flatnonzero(np.append(True, ring[1:] != ring[:-1]))
    following = np.arange(1, len(ring) + 1)
    following[np.append(start[1:], len(ring)) - 1] = start
    return following


@dataclass(frozen=True, slots=True, eq=False)
class _Stretches:
    """Rings cut into stretches; neighbouring rings have the same cuts.

    Parameters
    ----------
    xy
        ``(v, 2)`` vertices of concatenated rings, each starting at its first cut.
    begin, end
        ``(s,)`` indices of the first and the last vertex of each stretch.
    length
        ``(s,)`` number of vertices, excluding the last one.
    ring
        ``(s,)`` ring of each stretch.
    """

    xy: Ints
    begin: Ints
    end: Ints
    length: Ints
    ring: Ints

    @classmethod
    def of(cls, xy: Ints, ring: Ints, node: NDArray[np.bool_]) -> "_Stretches":
        """Cut rings at nodes, and closed stretches at their outermost vertices."""
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
        """Return the remaining vertices ``(v, 2)``, and the ring ``(v,)`` of each."""
        key = _keys(self.xy)
        # Both neighbours simplify a stretch in the same direction, so ties are broken alike.
        back = key[self.begin] > key[self.end]
        line, step = _counted(self.length + 1)
        step = np.where(back[line], self.length[line] - step, step)
        place = np.where(step < self.length[line], self.begin[line] + step, self.end[line])
        lines = shapely.linestrings(self.xy[place].astype(np.float64), indices=line)
        lines = shapely.simplify(lines, tolerance_px, preserve_topology=False)
        points = shapely.get_coordinates(lines)
        count = np.asarray(shapely.get_num_coordinates(lines), dtype=np.int64)
        line, step = _counted(count - 1)  # the last vertex belongs to the next stretch
        step = np.where(back[line], count[line] - 1 - step, step)
        return points[(np.cumsum(count) - count)[line] + step], self.ring[line]


def _keys(xy: Ints) -> Ints:
    """Return integers that order vertices by x, then by y."""
    keys: Ints = xy[:, 0] * _LINE + xy[:, 1]
    return keys


def _counted(count: Ints) -> tuple[Ints, Ints]:
    """Return the group of each member, and its index in the group, for groups of these sizes."""
    group = np.repeat(np.arange(len(count)), count)
    return group, np.arange(len(group)) - (np.cumsum(count) - count)[group]
