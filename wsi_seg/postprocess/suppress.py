"""Owns leaving out objects that lie too near to a likelier one, or overlap it too much.

Likelier objects are settled first, and only those that stay leave out others (non-maximum
suppression). Memory grows with the number of objects, not with that of pairs.
"""

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import KDTree

from wsi_seg.postprocess.runs import Ints, Labeller, Runs, over_runs
from wsi_seg.postprocess.strips import Source, Strip
from wsi_seg.postprocess.tally import Tally

Floats = NDArray[np.float64]


def clear_of_likelier(
    source: Source, *, distance_px: float, max_iou: float
) -> tuple[Ints, NDArray[np.uint8]]:
    """Class ids of the objects of a slide, 0 where a likelier object of any class is in the way.

    An object is the likelier the higher its highest probability is, then its mean, then the
    larger it is, then the earlier its first px comes.

    Parameters
    ----------
    source
        Class ids and probabilities.
    distance_px
        Least distance of centroids; 0 allows any.
    max_iou
        Most that bounding boxes may overlap; 1 allows any.

    Returns
    -------
    tuple
        Object of each piece, and the new value of each object.
    """
    labeller, sums = Labeller(), _Sums()
    for strip in source():
        sums.add(labeller.add(strip.y, strip.ids), strip)
    objects = labeller.objects()
    area = np.maximum(sums.area.of(objects), 1)
    highest, mean = sums.highest.of(objects, highest=True), sums.probability.of(objects) / area
    order = likeliest_first(highest, mean, area)
    value = sums.value.of(objects, highest=True).astype(np.uint8)
    if distance_px:
        centre = np.stack([sums.y.of(objects), sums.x.of(objects)], axis=1) / area[:, None]
        kept = kept_apart(centre, order, distance=distance_px)
        value, order = value * kept, order[kept[order]]
    if max_iou < 1:
        near = [-tally.of(objects, highest=True) for tally in (sums.top, sums.left)]
        far = [tally.of(objects, highest=True) for tally in (sums.bottom, sums.right)]
        boxes = np.stack([*near, *far], axis=1).astype(np.float64)
        value = value * kept_clear(boxes, order, max_iou=max_iou)
    return objects, value


class _Sums:
    """What tells where an object lies and how likely it is."""

    def __init__(self) -> None:
        self.value, self.area, self.y, self.x = Tally(), Tally(), Tally(), Tally()
        self.probability, self.highest = Tally(), Tally()
        self.top, self.left, self.bottom, self.right = Tally(), Tally(), Tally(), Tally()

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


def likeliest_first(*scores: Floats | Ints) -> Ints:
    """Order objects by their first score, highest first; further scores tell equal ones apart.

    Returns indices; objects equal in all stay in their order.
    """
    found: Ints = np.lexsort(tuple(-score for score in reversed(scores)))
    return found


def kept_apart(centre: Floats, order: Ints, *, distance: float) -> NDArray[np.bool_]:
    """Whether each object stays when none may be nearer than this to one that stays.

    Parameters
    ----------
    centre
        ``(n, d)``, in the unit of ``distance``.
    order
        Indices of objects in the order in which they are settled; those not named do not matter.
    distance
        Objects exactly this far apart both stay.
    """
    tree = KDTree(centre) if len(centre) else None

    def near(index: int) -> Ints:
        assert tree is not None
        hits = np.array(tree.query_ball_point(centre[index], distance), dtype=np.int64)
        squared = ((centre[hits] - centre[index]) ** 2).sum(axis=1)
        close: Ints = hits[squared < distance**2]
        return close

    return _settled(len(centre), order, near)


def kept_clear(boxes: Floats, order: Ints, *, max_iou: float) -> NDArray[np.bool_]:
    """Whether each object stays when no box may overlap that of one that stays by more than this.

    Parameters
    ----------
    boxes
        ``(n, 4)`` top, left, bottom, right; half open, so their areas are above 0.
    order
        As for `kept_apart`.
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
