"""Owns applying a rule to a slide: a few passes over its strips, any number of objects.

A first pass counts, the last writes; between them only a few numbers for each object are kept. So
a decision about an object is the same whatever the height of the strips.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.postprocess.rule import Rule, least_above
from wsi_seg.postprocess.runs import Ints, Labeller, Runs, over_runs, paint_runs
from wsi_seg.postprocess.split import split_objects
from wsi_seg.postprocess.strips import Source, Strip
from wsi_seg.postprocess.suppress import clear_of_likelier
from wsi_seg.postprocess.tally import Tally

# Gives each object its new value, from the runs that the first pass counted.
_Values = NDArray[np.uint8]


def decide(source: Source, rule: Rule, *, px_area: float, extent: Extent) -> Source:
    """Apply a rule to the likeliest classes of a slide.

    Parameters
    ----------
    source
        Likeliest class of each px and its probability.
    rule
        What is kept.
    px_area
        Area of a px in the rule's unit.
    extent
        Size of the slide.

    Returns
    -------
    Source
        Class ids that were decided on; each of its iterations reads the source once, the first
        one or two times more for each part of the rule.
    """
    weak = _weak(source, least_above(rule.bottom))
    if rule.scope == "image" and rule.min_area:
        weak = _images(weak, rule, px_area)
    if rule.split:
        # A hole would look like a neck at each side of it, and a line that ends in one like a hole.
        if rule.max_hole_area:
            weak = _filled(weak, rule.max_hole_area / px_area, extent)
        weak = split_objects(weak, rule.split / math.sqrt(px_area))
    if _counts_objects(rule):
        weak = _objects(weak, rule, px_area)
    if rule.apart or rule.max_iou < 1:
        weak = _clear(weak, rule, px_area)
    if rule.max_hole_area and not rule.split:
        weak = _filled(weak, rule.max_hole_area / px_area, extent)
    return weak


def _counts_objects(rule: Rule) -> bool:
    per_object = rule.scope == "object" and rule.min_area > 0
    return per_object or rule.min_object_area > 0 or rule.largest > 0


def _weak(source: Source, least: int) -> Source:
    def strips() -> Iterator[Strip]:
        for strip in source():
            ids = strip.ids * (strip.probability >= least)
            yield Strip(strip.y, ids, strip.probability)

    return strips


def _images(source: Source, rule: Rule, px_area: float) -> Source:
    """Leave out classes whose strong px cover too little of the slide."""

    @functools.cache
    def kept() -> NDArray[np.bool_]:
        strong = np.zeros(256, dtype=np.int64)
        least = least_above(rule.top)
        for strip in source():
            strong += np.bincount(strip.ids[strip.probability >= least], minlength=256)
        return ~(strong * px_area < rule.min_area)

    def strips() -> Iterator[Strip]:
        for strip in source():
            yield Strip(strip.y, strip.ids * kept()[strip.ids], strip.probability)

    return strips


def _objects(source: Source, rule: Rule, px_area: float) -> Source:
    """Leave out objects that are too weak, too small, or not among the largest."""
    least = least_above(rule.top)

    def values() -> tuple[Ints, _Values]:
        labeller = Labeller()
        areas, strong, classes = Tally(), Tally(), Tally()
        for strip in source():
            runs = labeller.add(strip.y, strip.ids)
            offset = strip.y * strip.ids.shape[1]
            areas.add(runs, runs.length)
            above = strip.probability >= least
            strong.add(runs, over_runs(np.add, above, runs.begin - offset, runs.end - offset))
            classes.highest(runs, runs.value)
        objects = labeller.objects()
        area = areas.of(objects) * px_area
        value = classes.of(objects, highest=True)
        kept = ~(area < rule.min_object_area)
        if rule.scope == "object":
            kept &= ~(strong.of(objects) * px_area < rule.min_area)
        if rule.largest:
            kept &= _among_largest(np.where(kept, area, 0.0), value, rule.largest)
        return objects, (value * kept).astype(np.uint8)

    return _repainted(source, values)


def _among_largest(area: NDArray[np.float64], value: Ints, count: int) -> NDArray[np.bool_]:
    """Whether each object is one of the largest of its class; of equal ones the first are."""
    order = np.lexsort((np.arange(len(area)), -area, value))
    first = np.searchsorted(value[order], value[order])
    kept = np.zeros(len(area), dtype=bool)
    kept[order] = np.arange(len(area)) - first < count
    return kept


def _clear(source: Source, rule: Rule, px_area: float) -> Source:
    """Leave out objects that a likelier one is in the way of."""
    distance_px = rule.apart / math.sqrt(px_area)

    def values() -> tuple[Ints, _Values]:
        return clear_of_likelier(source, distance_px=distance_px, max_iou=rule.max_iou)

    return _repainted(source, values)


def _filled(source: Source, most_px: float, extent: Extent) -> Source:
    """Give small holes the class at their left.

    A hole is background, connected along px sides, that reaches no border of the slide.
    """

    def values() -> tuple[Ints, _Values]:
        labeller = Labeller(background=True)
        areas, classes, outside, left = Tally(), Tally(), Tally(), Tally()
        for strip in source():
            runs = labeller.add(strip.y, strip.ids)
            areas.add(runs, runs.length)
            classes.highest(runs, runs.value)
            outside.highest(runs, _at_border(runs, extent))
            # The run before the piece's first one, which lies to its left: its class.
            before = np.concatenate([[0], runs.value[:-1]])
            first = np.unique(runs.piece, return_index=True)[1]
            left.first(before[first])
        objects = labeller.objects()
        value = classes.of(objects, highest=True)
        hole = (value == 0) & (outside.of(objects, highest=True) == 0)
        hole &= areas.of(objects) <= most_px
        pieces = np.unique(objects, return_index=True)[1]
        return objects, np.where(hole, left.firsts()[pieces], value).astype(np.uint8)

    return _repainted(source, values, background=True)


def _at_border(runs: Runs, extent: Extent) -> NDArray[np.bool_]:
    y, x = np.divmod(runs.begin, extent.width)
    sides = (x == 0) | (x + runs.length == extent.width)
    touching: NDArray[np.bool_] = sides | (y == 0) | (y == extent.height - 1)
    return touching


def _repainted(
    source: Source, values: Callable[[], tuple[Ints, _Values]], *, background: bool = False
) -> Source:
    """Give each object the value that was decided for it."""
    decided = functools.cache(values)

    def strips() -> Iterator[Strip]:
        objects, new = decided()
        labeller = Labeller(background=background)
        for strip in source():
            runs = labeller.add(strip.y, strip.ids)
            offset = strip.y * strip.ids.shape[1]
            painted = paint_runs(
                new[objects[runs.piece]], runs.begin - offset, runs.end - offset, strip.ids.size
            )
            yield Strip(strip.y, painted.reshape(strip.ids.shape), strip.probability)

    return strips
