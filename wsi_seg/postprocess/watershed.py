"""Owns splitting touching objects by a watershed of the distance transform, which cuts necks.

An object is split as a whole, even if it spans strips: its runs are buffered until its last row is
read. Objects whose bounding box is longer than `MAX_PX` are not split, so memory holds the runs of
that many rows, one square of pixels, and the pixels of the lines.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, generate_binary_structure
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from wsi_seg.postprocess.component_stats import ComponentStat
from wsi_seg.postprocess.components import ConnectedComponents, Ints, Runs, paint_runs
from wsi_seg.postprocess.strips import Source, Strip

# Longest side of the bounding box of an object that is split: many touching nuclei, not a whole
# gland.
MAX_PX = 1024

# Objects that begin in the same cell are split together. Objects with a longer bounding box than
# _ALONE_PX are split alone, because they would enlarge the array of a whole cell.
_CELL_PX = 512
_ALONE_PX = 256

_SIDES = generate_binary_structure(2, 1)


def split_objects(source: Source, depth_px: float) -> Source:
    """Split 4-connected objects at their necks by lines of background one pixel wide.

    Parameters
    ----------
    source
        Class ids and probabilities.
    depth_px
        ``h`` of the h-maxima of the distance transform: a neck is cut if its half width is smaller
        by more than this than the half widths of the object on both sides.
    """
    lines = functools.cache(lambda: _lines(source, depth_px))

    def strips() -> Iterator[Strip]:
        found = lines()
        for strip in source():
            begin = strip.y * strip.ids.shape[1]
            first, last = np.searchsorted(found, (begin, begin + strip.ids.size))
            ids = strip.ids.copy()
            ids.ravel()[found[first:last] - begin] = 0
            yield replace(strip, ids=ids)

    return strips


def _lines(source: Source, depth_px: float) -> Ints:
    """Return the flat indices of the pixels of all lines, ascending."""
    objects, boxes = _boxes(source)
    components, waiting = ConnectedComponents(), _Rows.empty()
    found = [np.empty(0, dtype=np.int64)]
    for strip in source():
        runs = components.add(strip.y, strip.ids)
        waiting = waiting.joined(_Rows.of(runs, objects[runs.label], boxes))
        rows, width = strip.ids.shape
        ended = boxes.bottom[waiting.number] <= strip.y + rows
        found += _cuts(waiting.where(ended), boxes, width, depth_px)
        waiting = waiting.where(~ended)
    return np.sort(np.concatenate(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Bounding boxes of objects in pixels, half open."""

    top: Ints
    left: Ints
    bottom: Ints
    right: Ints

    @property
    def longest(self) -> Ints:
        side: Ints = np.maximum(self.bottom - self.top, self.right - self.left)
        return side


def _boxes(source: Source) -> tuple[Ints, _Boxes]:
    """Return the object of each provisional label, and the bounding boxes of the objects."""
    components = ConnectedComponents()
    top, left, bottom, right = ComponentStat(), ComponentStat(), ComponentStat(), ComponentStat()
    for strip in source():
        runs = components.add(strip.y, strip.ids)
        y, x = np.divmod(runs.begin, strip.ids.shape[1])
        top.highest(runs, -y)
        left.highest(runs, -x)
        bottom.highest(runs, y + 1)
        right.highest(runs, x + runs.length)
    objects = components.objects()
    near = [-stat.of(objects, highest=True) for stat in (top, left)]
    far = [stat.of(objects, highest=True) for stat in (bottom, right)]
    return objects, _Boxes(*near, *far)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Runs with the index of their object, in raster order."""

    begin: Ints
    end: Ints
    value: Ints
    number: Ints

    @classmethod
    def empty(cls) -> "_Rows":
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, nothing)

    @classmethod
    def of(cls, runs: Runs, number: Ints, boxes: _Boxes) -> "_Rows":
        """Take the runs of the objects that are small enough to be split."""
        rows = cls(runs.begin, runs.end, runs.value.astype(np.int64), number)
        return rows.where(boxes.longest[number] <= MAX_PX)

    def where(self, kept: NDArray[np.bool_] | Ints) -> "_Rows":
        return _Rows(self.begin[kept], self.end[kept], self.value[kept], self.number[kept])

    def joined(self, other: "_Rows") -> "_Rows":
        return _Rows(
            np.concatenate([self.begin, other.begin]),
            np.concatenate([self.end, other.end]),
            np.concatenate([self.value, other.value]),
            np.concatenate([self.number, other.number]),
        )


def _cuts(rows: _Rows, boxes: _Boxes, width: int, depth_px: float) -> Iterator[Ints]:
    """Yield the flat indices of line pixels, for one group of objects at a time."""
    if not len(rows.begin):
        return
    number = rows.number
    alone = np.where(boxes.longest[number] > _ALONE_PX, number + 1, 0)
    cell = (boxes.top[number] // _CELL_PX, boxes.left[number] // _CELL_PX)
    _, group, count = np.unique(
        np.stack([rows.value, *cell, alone], axis=1),
        axis=0, return_inverse=True, return_counts=True,
    )  # fmt: skip
    order = np.argsort(group, kind="stable")
    for part in np.split(order, np.cumsum(count)[:-1]):
        some = rows.where(part)
        top, left = boxes.top[some.number].min() - 1, boxes.left[some.number].min() - 1
        high = int(boxes.bottom[some.number].max() + 1 - top)
        wide = int(boxes.right[some.number].max() + 1 - left)
        y, x = np.divmod(some.begin, width)
        begin = (y - top) * wide + x - left
        ones = np.ones(len(begin), dtype=np.uint8)
        mask = paint_runs(ones, begin, begin + some.end - some.begin, high * wide)
        y, x = np.nonzero(watershed_lines(mask.reshape(high, wide) > 0, depth_px))
        yield (y + top) * width + x + left


def watershed_lines(mask: NDArray[np.bool_], depth_px: float) -> NDArray[np.bool_]:
    """Find the lines that split the objects of a mask; see `split_objects`.

    Lines in an object do not depend on other objects, because those are separated from it by
    background, which is closer.

    Parameters
    ----------
    mask
        ``(h, w)`` mask whose border is background.
    depth_px
        Smallest depth of a neck.

    Returns
    -------
    NDArray[np.bool_]
        ``(h, w)`` pixels of the lines.
    """
    distance = distance_transform_edt(mask)
    # Suppress shallower maxima, but keep one in every object, even in small ones.
    seed = np.maximum(distance - depth_px, np.minimum(distance, 0.5))
    levelled = reconstruction(seed, distance, footprint=_SIDES)  # type: ignore[no-untyped-call]
    maxima = local_maxima(levelled, connectivity=1)  # type: ignore[no-untyped-call]
    # Each pixel of the maxima gets a distinct height, so that the flooding order is deterministic.
    relief = -distance
    relief[maxima] = np.arange(maxima.sum()) - maxima.size - distance.max()
    markers = label(maxima, connectivity=1)  # type: ignore[no-untyped-call]
    parts = watershed(  # type: ignore[no-untyped-call]
        relief, markers, mask=mask, connectivity=1, watershed_line=True
    )
    lines: NDArray[np.bool_] = mask & (parts == 0)
    return lines
