"""Owns the objects of a slide for review: outline, size, probability, error mass.

Objects are what the prediction's label map holds and, with a truth, the true ones that were
missed. Memory holds the largest `MOST` of them and the pixels of one.
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

# Objects kept per slide, the largest ones: nobody looks through more.
MOST = 20_000

# Longer side of the box that an object is measured in.
_BOX_PX = 256
# Rows that are outlined at a time: all objects in them are held, many bytes for each.
_STRIP_PX = 256

Kind = Literal["found", "missed", "true"]

_DRAWN = ClassTable.named(["drawn"])


@dataclass(frozen=True, slots=True, eq=False)
class ReviewObject:
    """One object with the figures that the page shows.

    Parameters
    ----------
    id
        Number that stays the same as long as the prediction does.
    kind
        ``found`` by the prediction, ``missed`` by it, or ``true`` where there is no prediction.
    class_name, colour
        Of its class.
    polygon
        Outline, ``(x, y)`` in level-0 pixels.
    area
        In um2; in px2 of level 0 where mpp is unknown.
    probability
        Mean over the object, 0 to 1; None without a prediction, or with one of class ids alone.
    overlap
        Share of the object that is of its class in the truth, pixels to ignore left out; None
        without a truth.
    error_mass
        Sum over the object of ``|probability - truth|`` times area, in the unit of ``area``;
        None without a truth. Of class ids alone, the probability is 1 where the class is, else 0.
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

    def to_json(self) -> dict[str, object]:
        """Figures, and the bounding box as x, y, x_end, y_end in level-0 pixels."""
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
        The slide's store.
    found
        Its prediction, or None.
    true
        The label that counts as the truth, or None.

    Returns
    -------
    list[ReviewObject]
        What was found, then what was missed; with neither prediction nor truth, nothing.
    """
    parts = object_parts(slide, found, true)
    objects = [one for pair in parts for one in _listed(slide, *pair)]
    return [replace(item, id=number) for number, item in enumerate(objects)]


def object_parts(
    slide: SlideStore, found: SlideStore | None, true: Multiscale | None
) -> list[tuple[SlideStore | None, Multiscale | None]]:
    """Prediction and truth, class by class where classes overlap.

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
    """Objects of classes of which a pixel has one; not numbered yet."""
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
    """Outline the true objects of a slide, found or not, as coarsely as it was predicted.

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
    """One slide with what is known of it, its level-0 pixels and areas.

    Parameters
    ----------
    slide, found, true
        See `list_review_objects`; of classes of which a pixel has one.
    """

    def __init__(
        self, slide: SlideStore, found: SlideStore | None, true: Multiscale | None
    ) -> None:
        self.found, self.true = found, true
        self.full = slide.pyramid.extent
        mpp = slide.pyramid.mpp
        self.px_area = 1.0 if mpp is None else mpp**2
        # Truth is outlined as coarsely as it was predicted.
        self.coarse = 1.0 if found is None else self.full.width / found.pyramid.extent.width

    def level_of(self, label: Multiscale) -> int:
        """Level at which a label map is outlined."""
        own = self.full.width / label.pyramid.extent.width
        return label.pyramid.level_at_or_below(max(1.0, self.coarse / own))


def _outlined(
    kind: Kind, label: Multiscale, subject: Subject
) -> list[tuple[Kind, ClassEntry, Polygon]]:
    """Largest objects of a label map, in level-0 pixels, in the order of their places."""
    classes = {entry.id: entry for entry in label.classes}
    level = subject.level_of(label)
    extent = label.pyramid.extents[level]
    scale = (subject.full.width / extent.width, subject.full.height / extent.height)
    values, polygons = _largest(vectorize_strips(_strips(label, level)), list(classes))
    whole = shapely.transform(polygons, lambda xy: xy * scale)
    return [(kind, classes[value], polygon) for value, polygon in zip(values, whole, strict=True)]


def _largest(
    objects: Iterable[tuple[NDArray[np.int64], NDArray[np.object_]]], wanted: list[int]
) -> tuple[list[int], NDArray[np.object_]]:
    """Class ids and polygons of the `MOST` largest objects of some classes, in their order."""
    values = np.empty(0, dtype=np.int64)
    polygons = np.empty(0, dtype=object)
    for found, outlines in objects:
        known = np.isin(found, wanted)
        values = np.concatenate([values, found[known]])
        polygons = np.concatenate([polygons, outlines[known]])
        # Of objects of one size the first ones stay.
        kept = np.sort(np.argsort(-shapely.area(polygons), kind="stable")[:MOST])
        values, polygons = values[kept], polygons[kept]
    return values.tolist(), polygons


def _strips(label: Multiscale, level: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for strip in label.pyramid.extents[level].strips(_STRIP_PX, level):
        rows = label.read(strip, cached=False)  # what is looked at stays in the cache
        yield strip.y, np.where(rows == IGNORE, 0, rows).astype(np.uint8)


class _Measure:
    """Reads prediction and truth under one object at a time."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._true = subject, subject.true
        self._image = None if subject.found is None else subject.found.image
        self._ids_only = subject.found is not None and subject.found.saved == "labels"
        found_classes = ClassTable(()) if self._image is None else self._image.classes
        self._exclusive = found_classes.is_exclusive
        self._ids = {entry.name: entry.id for entry in found_classes}
        self._true_classes = None if subject.true is None else subject.true.classes

    def of(self, kind: Kind, entry: ClassEntry, polygon: Polygon) -> ReviewObject | None:
        """Object with its figures, or None for a true one that was not missed."""
        area = polygon.area * self._subject.px_area
        plain = ReviewObject(0, kind, entry.name, entry.colour, polygon, area)
        if self._image is None or entry.name not in self._ids:
            return plain if kind != "missed" else None
        region, inside = self._inside(polygon, self._image)
        pixels, class_id = self._image.read(region), self._ids[entry.name]
        if kind == "missed" and self._shown(pixels, class_id)[inside].any():
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
        off = float(np.abs(probability[counted] - true).mean())
        share = float(counted.mean())
        return replace(plain, overlap=float(true.mean()), error_mass=off * share * area)

    def _probability(self, found: NDArray[np.uint8], class_id: int) -> NDArray[np.float64]:
        """Probability of a class in some pixels of the prediction."""
        values = (found == class_id) * 255 if self._ids_only else found[:, :, class_id - 1]
        return values / np.float64(255)

    def _shown(self, found: NDArray[np.uint8], class_id: int) -> NDArray[np.bool_]:
        """Whether the prediction shows a class in some of its pixels."""
        if not self._ids_only and self._exclusive:
            found = label_map(found, "exclusive")
        shown: NDArray[np.bool_] = (
            found == class_id if found.ndim == 2 else found[:, :, class_id - 1] > 127
        )
        return shown

    def _inside(self, polygon: Polygon, image: Multiscale) -> tuple[Region, NDArray[np.bool_]]:
        """Bounding box at a level where it is small, and which of its pixels the object covers."""
        x, y, x_end, y_end = polygon.bounds
        side = max(x_end - x, y_end - y)
        coarser = self._subject.full.width / image.pyramid.extent.width
        level = _level_for(image, side / coarser)
        extent = image.pyramid.extents[level]
        tall, wide = (
            self._subject.full.height / extent.height,
            self._subject.full.width / extent.width,
        )
        left = min(int(x / wide), extent.width - 1)
        top = min(int(y / tall), extent.height - 1)
        region = Region(
            level=level,
            y=top,
            x=left,
            height=max(1, int(np.ceil(y_end / tall)) - top),
            width=max(1, int(np.ceil(x_end / wide)) - left),
        ).clip(extent)
        drawer = Rasterizer([Annotation(polygon, "drawn")], _DRAWN)
        inside = drawer.draw(region, (tall, wide)) > 0
        # An object thinner than a pixel of this level covers no centre: its whole box counts.
        return region, inside if inside.any() else np.ones_like(inside)

    def _true_ids(self, entry: ClassEntry) -> list[int]:
        """Ids of the truth that are the class."""
        known = self._true_classes or ()
        return [one.id for one in known if one.name in (entry.name, *entry.parts)]

    def _truth(self, entry: ClassEntry, region: Region) -> NDArray[np.uint8] | None:
        """Class ids of the truth in a region of the prediction, where it knows the class."""
        if self._true is None or self._true_classes is None or self._image is None:
            return None
        if not self._true_ids(entry):
            return None
        extent = self._image.pyramid.extents[region.level]
        return read_label(
            self._true, extent, region.y, region.x, height=region.height, width=region.width
        )


def _level_for(image: Multiscale, side_px: float) -> int:
    """Finest level at which so many level-0 pixels are at most _BOX_PX, or the coarsest one."""
    levels = range(len(image.pyramid.extents))
    fitting = [n for n in levels if side_px / image.pyramid.downsample(n) <= _BOX_PX]
    return fitting[0] if fitting else levels[-1]
