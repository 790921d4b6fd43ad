"""Owns non-maximum suppression: objects too near to a more probable one, or under it, are left out.

Objects are settled in order of probability, and only those that stay leave out others. Memory grows
with the number of objects, not with that of pairs.
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
    """Class ids of the objects of a slide, 0 where another object of any class suppresses it.

    Of two objects the one with the higher maximum probability stays, then with the higher mean,
    then the larger one, then the one whose first pixel comes first.

    Parameters
    ----------
    source
        Class ids and probabilities.
    min_distance_px
        Least distance of centroids; 0 allows any.
    max_iou
        Most that bounding boxes may overlap; 1 allows any.

    Returns
    -------
    tuple
        Object of each provisional label, and the new value of each object.
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
    """Where objects are and how probable they are."""

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
    """Order objects by their first score, highest first; further scores decide between equal ones.

    Returns indices; objects equal in all stay in their order.
    """
    found: Ints = np.lexsort(tuple(-score for score in reversed(scores)))
    return found


def nms_by_distance(centre: Floats, order: Ints, *, min_distance: float) -> NDArray[np.bool_]:
    """Whether each object stays when none may be nearer than this to one that stays.

    Parameters
    ----------
    centre
        ``(n, d)``, in the unit of ``min_distance``.
    order
        Indices of objects in the order in which they are settled; those not named do not matter.
    distance
        Objects exactly this far apart both stay.
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
    """Whether each object stays when no box may overlap that of one that stays by more than this.

    Parameters
    ----------
    boxes
        ``(n, 4)`` top, left, bottom, right; half open, so their areas are above 0.
    order
        As for `nms_by_distance`.
    max_iou
        Shared area divided by the area of both together; boxes with exactly this both stay.
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
    """Go through objects in their order; each that is still there leaves out others."""
    kept = np.ones(count, dtype=bool)
    for index in order.tolist():
        if kept[index]:
            kept[others(index)] = False
            kept[index] = True
    return kept
