"""Owns applying a rule to a slide in a few passes over its strips, for any number of objects.

The first pass collects statistics, the last one yields class ids; between them, memory holds a few
integers per object. Decisions do not depend on the height of strips.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.postprocess.component_stats import ComponentStat
from wsi_seg.postprocess.components import ConnectedComponents, Ints, Runs, over_runs, paint_runs
from wsi_seg.postprocess.nms import non_maximum_suppression
from wsi_seg.postprocess.rule import Rule, least_above
from wsi_seg.postprocess.strips import Source, Strip
from wsi_seg.postprocess.watershed import split_objects

_Values = NDArray[np.uint8]  # new class id of each object


def decide(
    source: Source, rule: Rule, *, px_area: float, extent: Extent, exclusive: bool = False
) -> Source:
    """Apply a rule to the most probable classes of a slide.

    Parameters
    ----------
    source
        Most probable class of each pixel and its probability.
    rule
        Thresholds, areas and distances.
    px_area
        Area of a pixel in the rule's unit.
    extent
        Size of the prediction.
    exclusive
        Whether classes are exclusive, which determines the default thresholds.

    Returns
    -------
    Source
        Decided class ids. Each iteration reads the source once; the first one reads it once or
        twice more for each step of the rule.
    """
    high, low = map(least_above, rule.thresholds(exclusive=exclusive))
    kept = _above(source, low)
    if rule.per == "image" and rule.min_area:
        kept = _images(kept, rule, px_area, high)
    if rule.watershed_depth:
        # Holes first: the watershed would take both sides of a hole for necks, and a line that ends
        # in a hole would not split.
        if rule.max_hole_area:
            kept = _filled(kept, rule.max_hole_area / px_area, extent)
        kept = split_objects(kept, rule.watershed_depth / math.sqrt(px_area))
    if _counts_objects(rule):
        kept = _objects(kept, rule, px_area, high)
    if rule.min_distance or rule.nms_iou < 1:
        kept = _suppressed(kept, rule, px_area)
    if rule.max_hole_area and not rule.watershed_depth:
        kept = _filled(kept, rule.max_hole_area / px_area, extent)
    return kept


def _counts_objects(rule: Rule) -> bool:
    per_object = rule.per == "object" and rule.min_area > 0
    return per_object or rule.min_object_area > 0 or rule.keep_largest > 0


def _above(source: Source, least: int) -> Source:
    def strips() -> Iterator[Strip]:
        for strip in source():
            ids = strip.ids * (strip.probability >= least)
            yield Strip(strip.y, ids, strip.probability)

    return strips


def _images(source: Source, rule: Rule, px_area: float, least: int) -> Source:
    """Remove classes whose pixels above the high threshold cover too little of the slide."""

    @functools.cache
    def kept() -> NDArray[np.bool_]:
        high = np.zeros(256, dtype=np.int64)
        for strip in source():
            high += np.bincount(strip.ids[strip.probability >= least], minlength=256)
        return ~(high * px_area < rule.min_area)

    def strips() -> Iterator[Strip]:
        for strip in source():
            yield Strip(strip.y, strip.ids * kept()[strip.ids], strip.probability)

    return strips


def _objects(source: Source, rule: Rule, px_area: float, least: int) -> Source:
    """Remove objects that are too improbable, too small, or not among the largest."""

    def values() -> tuple[Ints, _Values]:
        components = ConnectedComponents()
        areas, high, classes = ComponentStat(), ComponentStat(), ComponentStat()
        for strip in source():
            runs = components.add(strip.y, strip.ids)
            offset = strip.y * strip.ids.shape[1]
            areas.add(runs, runs.length)
            above = strip.probability >= least
            high.add(runs, over_runs(np.add, above, runs.begin - offset, runs.end - offset))
            classes.highest(runs, runs.value)
        objects = components.objects()
        area = areas.of(objects) * px_area
        value = classes.of(objects, highest=True)
        kept = ~(area < rule.min_object_area)
        if rule.per == "object":
            kept &= ~(high.of(objects) * px_area < rule.min_area)
        if rule.keep_largest:
            kept &= _among_largest(np.where(kept, area, 0.0), value, rule.keep_largest)
        return objects, (value * kept).astype(np.uint8)

    return _repainted(source, values)


def _among_largest(area: NDArray[np.float64], value: Ints, count: int) -> NDArray[np.bool_]:
    """Return which objects are among the ``count`` largest of their class; ties keep the first."""
    order = np.lexsort((np.arange(len(area)), -area, value))
    first = np.searchsorted(value[order], value[order])
    kept = np.zeros(len(area), dtype=bool)
    kept[order] = np.arange(len(area)) - first < count
    return kept


def _suppressed(source: Source, rule: Rule, px_area: float) -> Source:
    """Remove objects that one of higher probability suppresses."""
    min_distance_px = rule.min_distance / math.sqrt(px_area)

    def values() -> tuple[Ints, _Values]:
        return non_maximum_suppression(
            source, min_distance_px=min_distance_px, max_iou=rule.nms_iou
        )

    return _repainted(source, values)


def _filled(source: Source, most_px: float, extent: Extent) -> Source:
    """Fill small holes with the class to their left.

    A hole is a 4-connected component of background that does not touch the border of the slide.
    """

    def values() -> tuple[Ints, _Values]:
        components = ConnectedComponents(background=True)
        areas, classes, outside, left = (
            ComponentStat(),
            ComponentStat(),
            ComponentStat(),
            ComponentStat(),
        )
        for strip in source():
            runs = components.add(strip.y, strip.ids)
            areas.add(runs, runs.length)
            classes.highest(runs, runs.value)
            outside.highest(runs, _at_border(runs, extent))
            # The class of the run to the left of each label's first run.
            before = np.concatenate([[0], runs.value[:-1]])
            first = np.unique(runs.label, return_index=True)[1]
            left.append(before[first])
        objects = components.objects()
        value = classes.of(objects, highest=True)
        hole = (value == 0) & (outside.of(objects, highest=True) == 0)
        hole &= areas.of(objects) <= most_px
        labels = np.unique(objects, return_index=True)[1]
        return objects, np.where(hole, left.values()[labels], value).astype(np.uint8)

    return _repainted(source, values, background=True)


def _at_border(runs: Runs, extent: Extent) -> NDArray[np.bool_]:
    y, x = np.divmod(runs.begin, extent.width)
    sides = (x == 0) | (x + runs.length == extent.width)
    touching: NDArray[np.bool_] = sides | (y == 0) | (y == extent.height - 1)
    return touching


def _repainted(
    source: Source, values: Callable[[], tuple[Ints, _Values]], *, background: bool = False
) -> Source:
    """Replace the class id of each object by its decided value."""
    decided = functools.cache(values)

    def strips() -> Iterator[Strip]:
        objects, new = decided()
        components = ConnectedComponents(background=background)
        for strip in source():
            runs = components.add(strip.y, strip.ids)
            offset = strip.y * strip.ids.shape[1]
            painted = paint_runs(
                new[objects[runs.label]], runs.begin - offset, runs.end - offset, strip.ids.size
            )
            yield Strip(strip.y, painted.reshape(strip.ids.shape), strip.probability)

    return strips
