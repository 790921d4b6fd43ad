"""Owns the objects of a slide for review: outline, size, probability, error mass.

These are the objects of the prediction's label map and, with a truth, the missed true objects.
Memory holds the largest `MAX_OBJECTS` of them and the pixels of one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_seg.annotations.model import Annotation
from wsi_seg.classes import IGNORE, ClassEntry, ClassTable
from wsi_seg.geometry import Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.vectorize import vectorize_strips
from wsi_seg.postprocess.label_map import label_map, predicted_label
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore
from wsi_seg.store.class_view import class_view, each_class, plane_of
from wsi_seg.store.slide_store import planes_error

# Number of largest objects to list per slide.
MAX_OBJECTS = 20_000

# Maximum length of the longer side of the box that an object is measured in.
_BOX_PX = 256
# Rows that are outlined at a time; memory holds all polygons in them.
_STRIP_PX = 256

# A found object that overlaps the truth by a smaller fraction is false.
_MIN_OVERLAP = 0.5

Kind = Literal["found", "missed", "true"]

_DRAWN = ClassTable.named(["drawn"])


@dataclass(frozen=True, slots=True, eq=False)
class ReviewObject:
    """One object with the measurements that the viewer shows.

    Parameters
    ----------
    id
        Index, which is stable as long as the prediction does not change.
    kind
        ``found`` or ``missed`` by the prediction; ``true`` without a prediction.
    class_name, colour
        Name and colour of its class.
    polygon
        Outline, ``(x, y)`` in level-0 pixels.
    area
        Area in um2, or in px2 of level 0 if mpp is unknown.
    probability
        Mean over the object, 0 to 1; None if there are no probabilities.
    overlap
        Fraction of the object that has its class in the truth, excluding pixels to ignore; None
        without a truth.
    error_mass
        Sum over the object of ``|probability - truth|`` times area, in the unit of ``area``;
        None without a truth. If only class ids were saved, probabilities are 0 or 1.
    """

    id: int
    kind: Kind
    class_name: str
    colour: str
    polygon: Polygon
    area: float
    probability: float | None = None
    overlap: float | None = None
    error_mass: float | None = None

    @property
    def status(self) -> Literal["found", "false", "missed", "true"]:
        """Kind of the object, but ``false`` for found ones that are mostly not true."""
        false = self.kind == "found" and self.overlap is not None and self.overlap < _MIN_OVERLAP
        return "false" if false else self.kind

    def to_json(self) -> dict[str, object]:
        """Return JSON values, with the bounding box as x, y, x_end, y_end in level-0 pixels."""
        return {
            "id": self.id,
            "kind": self.kind,
            "class": self.class_name,
            "colour": self.colour,
            "box": [round(value, 1) for value in self.polygon.bounds],
            "area": self.area,
            "probability": self.probability,
            "overlap": self.overlap,
            "error_mass": self.error_mass,
        }


def list_review_objects(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None
) -> list[ReviewObject]:
    """Outline and measure the objects of a slide.

    Parameters
    ----------
    slide
        Store of the slide.
    found
        Its prediction, or None.
    true
        Ground-truth label, or None.

    Returns
    -------
    list[ReviewObject]
        Found objects, then missed ones; empty without a prediction and a truth.
    """
    parts = object_parts(slide, found, true)
    objects = [one for pair in parts for one in _listed(slide, *pair)]
    return [replace(item, id=number) for number, item in enumerate(objects)]


def object_parts(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None
) -> list[tuple[SlideStore | None, Multiscale | None]]:
    """Pair the prediction with the truth, per class if classes overlap.

    Parameters
    ----------
    slide, found, true
        See `list_review_objects`.
    """
    planes = true is not None and true.channels is not None
    if found is None:
        return [(None, part) for part in each_class(true)] if true is not None else []
    if found.image.classes.planes is None:
        if not planes or true is None:
            return [(found, true)]
        if len(found.image.classes) > 1:
            raise planes_error(slide.name, true.name)
    views = [(class_view(found, entry), entry) for entry in found.image.classes]
    known = () if true is None else true.classes.names
    return [
        (view, plane_of(true, entry) if true is not None and entry.name in known else None)
        for view, entry in views
    ]


def _listed(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None
) -> list[ReviewObject]:
    """List objects of classes that do not overlap, not numbered yet."""
    subject = Subject(slide, found, true)
    objects: list[tuple[Kind, ClassEntry, Polygon]] = []
    if found is not None:
        objects += _outlined("found", predicted_label(found), subject)
        if true is not None:
            objects += _outlined("missed", true, subject)
    elif true is not None:
        objects += _outlined("true", true, subject)
    measure = _Measure(subject)
    measured = (measure.of(kind, entry, polygon) for kind, entry, polygon in objects)
    return [item for item in measured if item is not None]


def outline_truth(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None
) -> list[ReviewObject]:
    """Outline the true objects of a slide, found or not, at the resolution of the prediction.

    Parameters
    ----------
    slide, found, true
        See `list_review_objects`.
    """
    parts = () if true is None else each_class(true)
    px_area = Subject(slide, found, true).px_area
    outlined = [
        one for part in parts for one in _outlined("true", part, Subject(slide, found, part))
    ]
    return [
        ReviewObject(n, "true", entry.name, entry.colour, polygon, polygon.area * px_area)
        for n, (_, entry, polygon) in enumerate(outlined)
    ]


class Subject:
    """One slide with its prediction and truth, its level-0 size and its pixel area.

    Parameters
    ----------
    slide, found, true
        See `list_review_objects`; the classes do not overlap.
    """

    def __init__(
        self, slide: SlideStore, found: SlideStore | None, true: Multiscale | None
    ) -> None:
        self.found, self.true = found, true
        self.full = slide.pyramid.extent
        mpp = slide.pyramid.mpp
        self.px_area = 1.0 if mpp is None else mpp**2
        # The truth is outlined at the resolution of the prediction.
        self.coarse = 1.0 if found is None else self.full.width / found.pyramid.extent.width

    def level_of(self, label: Multiscale) -> int:
        """Return the level at which a label map is outlined."""
        own = self.full.width / label.pyramid.extent.width
        return label.pyramid.level_at_or_below(max(1.0, self.coarse / own))


def _outlined(
    kind: Kind, label: Multiscale, subject: Subject
) -> list[tuple[Kind, ClassEntry, Polygon]]:
    """Outline the largest objects of a label map, in level-0 pixels, in raster order."""
    classes = {entry.id: entry for entry in label.classes}
    level = subject.level_of(label)
    extent = label.pyramid.extents[level]
    scale = (subject.full.width / extent.width, subject.full.height / extent.height)
    values, polygons = _largest(vectorize_strips(_strips(label, level)), list(classes))
    whole = shapely.transform(polygons, lambda xy: xy * scale)
    return [(kind, classes[value], polygon) for value, polygon in zip(values, whole, strict=True)]


def _largest(
    objects: Iterable[tuple[NDArray[np.int64], NDArray[np.object_]]], class_ids: list[int]
) -> tuple[list[int], NDArray[np.object_]]:
    """Select the `MAX_OBJECTS` largest objects of some classes, in their order."""
    values = np.empty(0, dtype=np.int64)
    polygons = np.empty(0, dtype=object)
    for found, outlines in objects:
        known = np.isin(found, class_ids)
        values = np.concatenate([values, found[known]])
        polygons = np.concatenate([polygons, outlines[known]])
        # The sort is stable, so ties keep the first objects.
        kept = np.sort(np.argsort(-shapely.area(polygons), kind="stable")[:MAX_OBJECTS])
        values, polygons = values[kept], polygons[kept]
    return values.tolist(), polygons


def _strips(label: Multiscale, level: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for strip in label.pyramid.extents[level].strips(_STRIP_PX, level):
        rows = label.read(strip, cached=False)  # the cache is reserved for tiles
        yield strip.y, np.where(rows == IGNORE, 0, rows).astype(np.uint8)


class _Measure:
    """Measures one object at a time, from the pixels of prediction and truth."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._true = subject, subject.true
        self._image = None if subject.found is None else subject.found.image
        self._ids_only = subject.found is not None and subject.found.saved == "labels"
        found_classes = ClassTable(()) if self._image is None else self._image.classes
        self._exclusive = found_classes.is_exclusive
        self._ids = {entry.name: entry.id for entry in found_classes}
        self._true_classes = None if subject.true is None else subject.true.classes

    def of(self, kind: Kind, entry: ClassEntry, polygon: Polygon) -> ReviewObject | None:
        """Measure an object; return None for a true object that was not missed."""
        area = polygon.area * self._subject.px_area
        plain = ReviewObject(0, kind, entry.name, entry.colour, polygon, area)
        if self._image is None or entry.name not in self._ids:
            return plain if kind != "missed" else None
        region, inside = self._inside(polygon, self._image)
        pixels, class_id = self._image.read(region), self._ids[entry.name]
        if kind == "missed" and self._is_class(pixels, class_id)[inside].any():
            return None
        probability = self._probability(pixels, class_id)[inside]
        if not self._ids_only:
            plain = replace(plain, probability=float(probability.mean()))
        ids = self._truth(entry, region)
        if ids is None or self._true_classes is None:
            return plain
        counted = ids[inside] != IGNORE
        if not counted.any():
            return plain
        true = np.isin(ids[inside][counted], self._true_ids(entry))
        error = float(np.abs(probability[counted] - true).mean())
        fraction = float(counted.mean())
        return replace(plain, overlap=float(true.mean()), error_mass=error * fraction * area)

    def _probability(self, found: NDArray[np.uint8], class_id: int) -> NDArray[np.float64]:
        """Return the probability of a class in pixels of the prediction, 0 to 1."""
        values = (found == class_id) * 255 if self._ids_only else found[:, :, class_id - 1]
        return values / np.float64(255)

    def _is_class(self, found: NDArray[np.uint8], class_id: int) -> NDArray[np.bool_]:
        """Return which pixels of the prediction are decided as a class."""
        if not self._ids_only and self._exclusive:
            found = label_map(found, "exclusive")
        decided: NDArray[np.bool_] = (
            found == class_id if found.ndim == 2 else found[:, :, class_id - 1] > 127
        )
        return decided

    def _inside(self, polygon: Polygon, image: Multiscale) -> tuple[Region, NDArray[np.bool_]]:
        """Return the bounding box of an object at a coarse level, and the pixels that it covers."""
        x, y, x_end, y_end = polygon.bounds
        side = max(x_end - x, y_end - y)
        coarser = self._subject.full.width / image.pyramid.extent.width
        level = _level_for(image, side / coarser)
        extent = image.pyramid.extents[level]
        full = self._subject.full
        scale_y, scale_x = full.height / extent.height, full.width / extent.width
        left = min(int(x / scale_x), extent.width - 1)
        top = min(int(y / scale_y), extent.height - 1)
        region = Region(
            level=level,
            y=top,
            x=left,
            height=max(1, int(np.ceil(y_end / scale_y)) - top),
            width=max(1, int(np.ceil(x_end / scale_x)) - left),
        ).clip(extent)
        drawer = Rasterizer([Annotation(polygon, "drawn")], _DRAWN)
        inside = drawer.draw(region, (scale_y, scale_x)) > 0
        # An object may be too thin to cover a pixel centre of this level; then take its box.
        return region, inside if inside.any() else np.ones_like(inside)

    def _true_ids(self, entry: ClassEntry) -> list[int]:
        """Return the ids of the truth that map to a class."""
        known = self._true_classes or ()
        return [one.id for one in known if one.name in (entry.name, *entry.parts)]

    def _truth(self, entry: ClassEntry, region: Region) -> NDArray[np.uint8] | None:
        """Read class ids of the truth in a region of the prediction, if the truth has the class."""
        if self._true is None or self._true_classes is None or self._image is None:
            return None
        if not self._true_ids(entry):
            return None
        extent = self._image.pyramid.extents[region.level]
        return read_label(
            self._true, extent, region.y, region.x, height=region.height, width=region.width
        )


def _level_for(image: Multiscale, side_px: float) -> int:
    """Return the finest level at which a side is at most _BOX_PX, or the coarsest level."""
    levels = range(len(image.pyramid.extents))
    fitting = [n for n in levels if side_px / image.pyramid.downsample(n) <= _BOX_PX]
    return fitting[0] if fitting else levels[-1]
