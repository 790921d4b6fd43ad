"""Owns tracing all objects in a region, for slides with more objects than are listed.

Objects are traced from the label maps on request. Objects that extend beyond the traced region are
skipped: they are large, and therefore listed.
"""

import math
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from wsi_seg.classes import IGNORE, ClassEntry, ClassTable
from wsi_seg.evaluation.review_objects import Kind, ReviewObject, Subject, object_parts
from wsi_seg.geometry import Region
from wsi_seg.masks.borders import trace
from wsi_seg.postprocess.label_map import predicted_label
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore
from wsi_seg.store.class_view import each_class

# Id of objects that are not listed.
UNLISTED = -1

# Largest region that is traced, in pixels of the label map.
_MAX_PX = 2**22
# Margin around the requested region, so that objects at its border are complete.
_MARGIN_PX = 64

Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]


def trace_objects(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None, box: Box
) -> list[ReviewObject] | None:
    """Outline all objects in a box, listed or not; those at its border may extend beyond it.

    Parameters
    ----------
    slide, found, true
        See `list_review_objects`.
    box
        x, y, x_end, y_end in level-0 pixels.

    Returns
    -------
    list[ReviewObject] | None
        Objects of id `UNLISTED`, with outline, area and, for found objects, overlap; None if the
        box is too large.

    Examples
    --------
    >>> trace_objects(slide, prediction, None, (0, 0, 512, 512))  # doctest: +SKIP
    """
    objects: list[ReviewObject] = []
    for part, own_true in object_parts(slide, found, true):
        label = own_true if part is None else predicted_label(part)
        assert label is not None, "there is a prediction or a truth"
        place = _Place(label, Subject(slide, part, own_true), box)
        if place.too_large:
            return None
        ids, classes = place.ids(label), label.classes
        if part is None:
            objects += place.objects("true", ids, None, classes)
            continue
        expected = (
            None if own_true is None else classes.recoding(own_true.classes)[place.ids(own_true)]
        )
        objects += place.objects("found", ids, expected, classes)
        if expected is not None:
            missed = place.objects("missed", expected, ids, classes)
            objects += [replace(item, overlap=None) for item in missed if item.overlap == 0]
    return objects


def trace_truth(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None, box: Box
) -> list[ReviewObject] | None:
    """Outline the true objects in a box, found or not; see `outline_truth`.

    Parameters
    ----------
    slide, found, true
        See `list_review_objects`.
    box
        See `trace_objects`.

    Examples
    --------
    >>> trace_truth(slide, prediction, label, (0, 0, 512, 512))  # doctest: +SKIP
    """
    objects: list[ReviewObject] = []
    for part in () if true is None else each_class(true):
        place = _Place(part, Subject(slide, found, part), box)
        if place.too_large:
            return None
        objects += place.objects("true", place.ids(part), None, part.classes)
    return objects


class _Place:
    """Region of a label map around a box, and its scale on the slide."""

    def __init__(self, label: Multiscale, subject: Subject, box: Box) -> None:
        level = subject.level_of(label)
        extent = self.extent = label.pyramid.extents[level]
        scale_x, scale_y = subject.full.width / extent.width, subject.full.height / extent.height
        x, y = math.floor(box[0] / scale_x) - _MARGIN_PX, math.floor(box[1] / scale_y) - _MARGIN_PX
        x, y = min(max(0, x), extent.width - 1), min(max(0, y), extent.height - 1)
        x_end = max(x + 1, min(extent.width, math.ceil(box[2] / scale_x) + _MARGIN_PX))
        y_end = max(y + 1, min(extent.height, math.ceil(box[3] / scale_y) + _MARGIN_PX))
        self.region = Region(level=level, y=y, x=x, height=y_end - y, width=x_end - x)
        self._scale, self._px_area = (scale_x, scale_y), subject.px_area

    @property
    def too_large(self) -> bool:
        """Whether the region is too large to trace."""
        return self.region.height * self.region.width > _MAX_PX

    def ids(self, label: Multiscale) -> Pixels:
        """Read class ids of a label map of any resolution in the region."""
        y, x = self.region.y, self.region.x
        height, width = self.region.height, self.region.width
        return read_label(label, self.extent, y, x, height=height, width=width)

    def objects(
        self, kind: Kind, ids: Pixels, other: Pixels | None, classes: ClassTable
    ) -> list[ReviewObject]:
        """Trace the complete objects of ids, and the fraction with the same id in ``other``."""
        entries = {entry.id: entry for entry in classes}
        known = np.where(np.isin(ids, list(entries)), ids, 0).astype(np.uint8)
        values, polygons = trace(known)
        if not len(values):
            return []
        # The pixel to the lower right of the first, uppermost vertex belongs to the object.
        corner = shapely.get_point(shapely.get_exterior_ring(polygons), 0)
        x, y = shapely.get_coordinates(corner).astype(np.int64).T
        shares = None if other is None else _shares(known, other)[y, x]
        whole = np.flatnonzero(self._whole(polygons))
        origin = np.array([self.region.x, self.region.y])
        placed = shapely.transform(polygons[whole], lambda xy: (xy + origin) * self._scale)
        return [
            self._object(
                kind, entries[int(values[n])], polygon, None if shares is None else shares[n]
            )
            for n, polygon in zip(whole.tolist(), placed, strict=True)
        ]

    def _whole(self, polygons: NDArray[np.object_]) -> NDArray[np.bool_]:
        """Return which polygons are not clipped by the region, except at the slide's border."""
        bounds = shapely.bounds(polygons)
        region, extent = self.region, self.extent
        inside = np.ones(len(polygons), dtype=np.bool_)
        if region.x > 0:
            inside &= bounds[:, 0] > 0
        if region.y > 0:
            inside &= bounds[:, 1] > 0
        if region.x_end < extent.width:
            inside &= bounds[:, 2] < region.width
        if region.y_end < extent.height:
            inside &= bounds[:, 3] < region.height
        return inside

    def _object(
        self, kind: Kind, entry: ClassEntry, polygon: shapely.Polygon, share: float | None
    ) -> ReviewObject:
        overlap = None if share is None or math.isnan(share) else float(share)
        area = polygon.area * self._px_area
        return ReviewObject(
            UNLISTED, kind, entry.name, entry.colour, polygon, area, overlap=overlap
        )


def _shares(ids: Pixels, other: Pixels) -> NDArray[np.float64]:
    """Return, for each pixel of an object, the object's fraction of equal ids in ``other``."""
    shares = np.zeros(ids.shape)
    counted = other != IGNORE
    for value in np.unique(ids[ids > 0]).tolist():
        part, _ = ndimage.label(ids == value)
        total = np.bincount(part.ravel(), counted.ravel())
        same = np.bincount(part.ravel(), (other == value).ravel())
        share = np.divide(same, total, out=np.full(len(total), np.nan), where=total > 0)
        shares = np.where(part > 0, share[part], shares)
    return shares
