"""Owns parting objects that touch: a watershed of the distance to their outlines cuts necks.

An object is parted as a whole, whatever strips it lies in: its runs wait until its last row was
read. Objects whose box is longer than `MOST_PX` are left whole, so memory holds the runs of that
many rows, one square of px, and the px of the lines.
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

from wsi_seg.postprocess.runs import Ints, Labeller, Runs, paint_runs
from wsi_seg.postprocess.strips import Source, Strip
from wsi_seg.postprocess.tally import Tally

# Longest side of an object's box that is parted, in px: many touching nuclei, not a whole gland.
MOST_PX = 1024

# Objects that begin in one square of this side are worked on together, those with a box longer than
# this apart: a few large ones would make the px around many small ones count several times.
_CELL_PX = 512
_APART_PX = 256

_SIDES = generate_binary_structure(2, 1)


def split_objects(source: Source, depth_px: float) -> Source:
    """Part objects at their necks by lines of background one px wide.

    Parameters
    ----------
    source
        Class ids; px of one class that touch along a side are one object.
    depth_px
        A neck is cut where its half width is smaller by more than this than the half width of
        the object on either side of it.
    """
    lines = functools.cache(lambda: _lines(source, depth_px))

    def strips() -> Iterator[Strip]:
        px = lines()
        for strip in source():
            begin = strip.y * strip.ids.shape[1]
            first, last = np.searchsorted(px, (begin, begin + strip.ids.size))
            ids = strip.ids.copy()
            ids.ravel()[px[first:last] - begin] = 0
            yield replace(strip, ids=ids)

    return strips


def _lines(source: Source, depth_px: float) -> Ints:
    """Flat indices of the px of all lines, ascending."""
    objects, boxes = _boxes(source)
    labeller, waiting = Labeller(), _Rows.none()
    found = [np.empty(0, dtype=np.int64)]
    for strip in source():
        runs = labeller.add(strip.y, strip.ids)
        waiting = waiting.joined(_Rows.of(runs, objects[runs.piece], boxes))
        rows, width = strip.ids.shape
        ended = boxes.bottom[waiting.number] <= strip.y + rows
        found += _cuts(waiting.where(ended), boxes, width, depth_px)
        waiting = waiting.where(~ended)
    return np.sort(np.concatenate(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Box of each object in px, half open."""

    top: Ints
    left: Ints
    bottom: Ints
    right: Ints

    @property
    def longest(self) -> Ints:
        side: Ints = np.maximum(self.bottom - self.top, self.right - self.left)
        return side


def _boxes(source: Source) -> tuple[Ints, _Boxes]:
    """Object of each piece, and the boxes of the objects."""
    labeller = Labeller()
    top, left, bottom, right = Tally(), Tally(), Tally(), Tally()
    for strip in source():
        runs = labeller.add(strip.y, strip.ids)
        y, x = np.divmod(runs.begin, strip.ids.shape[1])
        top.highest(runs, -y)
        left.highest(runs, -x)
        bottom.highest(runs, y + 1)
        right.highest(runs, x + runs.length)
    objects = labeller.objects()
    near = [-tally.of(objects, highest=True) for tally in (top, left)]
    far = [tally.of(objects, highest=True) for tally in (bottom, right)]
    return objects, _Boxes(*near, *far)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Runs of px with the number of their object, in the order of their places."""

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
    """Flat indices of the px of lines, for some objects at a time."""
    if not len(rows.begin):
        return
    number = rows.number
    apart = np.where(boxes.longest[number] > _APART_PX, number + 1, 0)
    cell = (boxes.top[number] // _CELL_PX, boxes.left[number] // _CELL_PX)
    _, group, count = np.unique(
        np.stack([rows.value, *cell, apart], axis=1),
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
        y, x = np.nonzero(necks(mask.reshape(high, wide) > 0, depth_px))
        yield (y + top) * width + x + left


def necks(mask: NDArray[np.bool_], depth_px: float) -> NDArray[np.bool_]:
    """Lines that part the objects of a mask; see `split_objects`.

    What is found in an object does not depend on others: px that touch at a corner only are
    apart, and nothing in one object is nearer to px of another than to background.

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
    tops = local_maxima(levelled, connectivity=1)  # type: ignore[no-untyped-call]
    # The flood begins at all tops, each px at a height of its own: no order is left to chance.
    ground = -distance
    ground[tops] = np.arange(tops.sum()) - tops.size - distance.max()
    markers = label(tops, connectivity=1)  # type: ignore[no-untyped-call]
    parts = watershed(  # type: ignore[no-untyped-call]
        ground, markers, mask=mask, connectivity=1, watershed_line=True
    )
    lines: NDArray[np.bool_] = mask & (parts == 0)
    return lines
