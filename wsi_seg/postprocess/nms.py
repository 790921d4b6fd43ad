"""Owns non-maximum suppression: objects close to, or overlapping, a more probable one are removed.

Objects are visited in order of probability, and only those that are kept suppress others. Memory
grows with the number of objects, not of pairs.
"""

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import KDTree

from wsi_seg.postprocess.component_stats import ComponentStat
from wsi_seg.postprocess.components import ConnectedComponents, Ints, Runs, over_runs
from wsi_seg.postprocess.strips import Source, Strip

Floats = NDArray[np.float64]


def non_maximum_suppression(
    source: Source, *, min_distance_px: float, max_iou: float
) -> tuple[Ints, NDArray[np.uint8]]:
    """Suppress objects of a slide, regardless of their classes.

    Of two objects, the one with the higher maximum probability is kept; ties are broken by the mean
    probability, then by the area, then by raster order.

    Parameters
    ----------
    source
        Class ids and probabilities.
    min_distance_px
        Smallest allowed distance between centroids, in pixels; 0 allows any.
    max_iou
        Largest allowed IoU of bounding boxes; 1 allows any.

    Returns
    -------
    NDArray[np.int64]
        ``(l,)`` object of each provisional label.
    NDArray[np.uint8]
        ``(n,)`` class id of each object, 0 if it is suppressed.
    """
    components, sums = ConnectedComponents(), _Sums()
    for strip in source():
        sums.add(components.add(strip.y, strip.ids), strip)
    objects = components.objects()
    area = np.maximum(sums.area.of(objects), 1)
    highest, mean = sums.highest.of(objects, highest=True), sums.probability.of(objects) / area
    order = score_order(highest, mean, area)
    value = sums.value.of(objects, highest=True).astype(np.uint8)
    if min_distance_px:
        centre = np.stack([sums.y.of(objects), sums.x.of(objects)], axis=1) / area[:, None]
        kept = nms_by_distance(centre, order, min_distance=min_distance_px)
        value, order = value * kept, order[kept[order]]
    if max_iou < 1:
        near = [-stat.of(objects, highest=True) for stat in (sums.top, sums.left)]
        far = [stat.of(objects, highest=True) for stat in (sums.bottom, sums.right)]
        boxes = np.stack([*near, *far], axis=1).astype(np.float64)
        value = value * nms_by_iou(boxes, order, max_iou=max_iou)
    return objects, value


class _Sums:
    """Statistics of positions and probabilities of objects."""

    def __init__(self) -> None:
        self.value, self.area, self.y, self.x = (
            ComponentStat(),
            ComponentStat(),
            ComponentStat(),
            ComponentStat(),
        )
        self.probability, self.highest = ComponentStat(), ComponentStat()
        self.top, self.left, self.bottom, self.right = (
            ComponentStat(),
            ComponentStat(),
            ComponentStat(),
            ComponentStat(),
        )

    def add(self, runs: Runs, strip: Strip) -> None:
        width = strip.ids.shape[1]
        y, x = np.divmod(runs.begin, width)
        begin, end = runs.begin - strip.y * width, runs.end - strip.y * width
        self.value.highest(runs, runs.value)
        self.area.add(runs, runs.length)
        self.y.add(runs, runs.length * y)
        self.x.add(runs, runs.length * (2 * x + runs.length - 1) // 2)
        self.probability.add(runs, over_runs(np.add, strip.probability, begin, end))
        self.highest.highest(runs, over_runs(np.maximum, strip.probability, begin, end))
        self.top.highest(runs, -y)
        self.left.highest(runs, -x)
        self.bottom.highest(runs, y + 1)
        self.right.highest(runs, x + runs.length)


def score_order(*scores: Floats | Ints) -> Ints:
    """Return the indices ``(n,)`` that sort objects by descending scores, the first one foremost.

    The sort is stable.
    """
    found: Ints = np.lexsort(tuple(-score for score in reversed(scores)))
    return found


def nms_by_distance(centre: Floats, order: Ints, *, min_distance: float) -> NDArray[np.bool_]:
    """Return which objects ``(n,)`` are kept if none may be closer than a distance to a kept one.

    Parameters
    ----------
    centre
        ``(n, d)`` centroids, in the unit of ``min_distance``.
    order
        Indices of objects in the order in which they are visited; others are ignored.
    min_distance
        Objects at exactly this distance are both kept.
    """
    tree = KDTree(centre) if len(centre) else None

    def near(index: int) -> Ints:
        assert tree is not None
        hits = np.array(tree.query_ball_point(centre[index], min_distance), dtype=np.int64)
        squared = ((centre[hits] - centre[index]) ** 2).sum(axis=1)
        close: Ints = hits[squared < min_distance**2]
        return close

    return _settled(len(centre), order, near)


def nms_by_iou(boxes: Floats, order: Ints, *, max_iou: float) -> NDArray[np.bool_]:
    """Return which objects ``(n,)`` are kept if no box may overlap a kept one by more than an IoU.

    Parameters
    ----------
    boxes
        ``(n, 4)`` top, left, bottom, right; half open, with positive areas.
    order
        See `nms_by_distance`.
    max_iou
        Boxes with exactly this IoU are both kept.
    """
    shapes = shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3])
    tree = shapely.STRtree(list(shapes))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    def overlapping(index: int) -> Ints:
        hits: Ints = tree.query(shapes[index])
        ours, theirs = boxes[index], boxes[hits]
        sides = np.minimum(ours[2:], theirs[:, 2:]) - np.maximum(ours[:2], theirs[:, :2])
        shared = np.clip(sides, 0, None).prod(axis=1)
        close: Ints = hits[shared > max_iou * (area[index] + area[hits] - shared)]
        return close

    return _settled(len(boxes), order, overlapping)


def _settled(count: int, order: Ints, others: Callable[[int], Ints]) -> NDArray[np.bool_]:
    """Visit objects in their order; each one that is still kept suppresses its neighbours."""
    kept = np.ones(count, dtype=bool)
    for index in order.tolist():
        if kept[index]:
            kept[others(index)] = False
            kept[index] = True
    return kept
