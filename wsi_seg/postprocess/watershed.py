"""Owns splitting objects that touch: a watershed of the distance to their outlines cuts necks.

An object is split as a whole, whatever strips it is in: its runs wait until its last row was
read. Objects whose box is longer than `MOST_PX` are not split, so memory holds the runs of that
many rows, one square of pixels, and the pixels of the lines.
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

# Longest side of the box of an object that is split, in pixels: many touching nuclei, not a whole
# gland.
MOST_PX = 1024

# Objects that begin in one square of this side are split together, those with a longer box alone:
# a few large ones would make the pixels around many small ones count several times.
_CELL_PX = 512
_ALONE_PX = 256

_SIDES = generate_binary_structure(2, 1)


def split_objects(source: Source, depth_px: float) -> Source:
    """Split objects at their necks by lines of background one pixel wide.

    Parameters
    ----------
    source
        Class ids; pixels of one class that touch along a side are one object.
    depth_px
        ``h`` of the h-maxima of the distance: a neck is cut where its half width is smaller by more
        than this than the half width of the object on either side of it.
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
    """Flat indices of the pixels of all lines, ascending."""
    objects, boxes = _boxes(source)
    components, waiting = ConnectedComponents(), _Rows.none()
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
    """Box of each object in pixels, half open."""

    top: Ints
    left: Ints
    bottom: Ints
    right: Ints

    @property
    def longest(self) -> Ints:
        side: Ints = np.maximum(self.bottom - self.top, self.right - self.left)
        return side


def _boxes(source: Source) -> tuple[Ints, _Boxes]:
    """Object of each provisional label, and the boxes of the objects."""
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
    """Runs with the number of their object, in raster order."""

    begin: Ints
    end: Ints
    value: Ints
    number: Ints

    @classmethod
    def none(cls) -> "_Rows":
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, nothing)

    @classmethod
    def of(cls, runs: Runs, number: Ints, boxes: _Boxes) -> "_Rows":
        """Take the runs of those objects that are small enough."""
        rows = cls(runs.begin, runs.end, runs.value.astype(np.int64), number)
        return rows.where(boxes.longest[number] <= MOST_PX)

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
    """Flat indices of the pixels of lines, for some objects at a time."""
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
    """Lines that split the objects of a mask; see `split_objects`.

    What is found in an object does not depend on others: pixels that only touch
    at a corner are separate, and nothing in one object is nearer to another than to background.

    Parameters
    ----------
    mask
        ``(h, w)``, its border is background.
    depth_px
        Least depth of a neck.
    """
    distance = distance_transform_edt(mask)
    # Maxima less deep than this are levelled; one is left in every object, small ones included.
    seed = np.maximum(distance - depth_px, np.minimum(distance, 0.5))
    levelled = reconstruction(seed, distance, footprint=_SIDES)  # type: ignore[no-untyped-call]
    maxima = local_maxima(levelled, connectivity=1)  # type: ignore[no-untyped-call]
    # The flood begins at all maxima, each pixel at a height of its own: no order is left to chance.
    relief = -distance
    relief[maxima] = np.arange(maxima.sum()) - maxima.size - distance.max()
    markers = label(maxima, connectivity=1)  # type: ignore[no-untyped-call]
    parts = watershed(  # type: ignore[no-untyped-call]
        relief, markers, mask=mask, connectivity=1, watershed_line=True
    )
    lines: NDArray[np.bool_] = mask & (parts == 0)
    return lines
