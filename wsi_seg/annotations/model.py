"""Owns the annotation model: valid polygons with a class name and a source."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry, BaseMultipartGeometry

from wsi_seg.counts import counted
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits

Area = Polygon | MultiPolygon

# Smaller parts are artefacts of drawing tools.
SLIVER_PX2 = 1.0

# Sides sampled to estimate how often an outline crosses itself.
_SAMPLED_SIDES = 500
# A file may have this many times the crossings that one outline may have.
_FILE_CROSSINGS = 10


@dataclass(frozen=True, slots=True)
class Lesion:
    """A structure in a volume, of which each slice shows a section.

    Parameters
    ----------
    name
        Unique name, the same on all slices.
    diameter_mm
        Diameter of the whole lesion in mm.
    """

    name: str
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class Annotation:
    """One outlined structure.

    Parameters
    ----------
    geometry
        Valid polygon or multipolygon, with holes, ``(x, y)`` in level-0 pixels.
    class_name
        Name of the class.
    source
        Origin, for example ``expert``, ``hand``, ``pseudo``, ``external`` or ``review``.
    weight
        Weight in training, 0 to 1.
    lesion
        Lesion of which this is a section; None for a structure of a single image.
    """

    geometry: Area
    class_name: str
    source: str = "expert"
    weight: float = 1.0
    lesion: Lesion | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """All structures of one slide, in drawing order: later ones cover earlier ones.

    Parameters
    ----------
    items
        The structures.
    repairs
        What was repaired or skipped, one sentence each.
    extent
        Image size that the file states; None if it states none.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> drawn = Annotations((Annotation(box(0, 0, 9, 9), "gland"),))
    >>> drawn.items[0].class_name
    'gland'
    """

    items: tuple[Annotation, ...]
    repairs: tuple[str, ...] = ()
    extent: Extent | None = None


@dataclass(frozen=True, slots=True)
class AnnotationSets:
    """Annotations of several slides, from a file that names its slides.

    Parameters
    ----------
    by_slide
        Annotations by slide name.
    unmatched
        Images in the file that match no slide.
    notes
        What was ignored or guessed, one sentence each.
    """

    by_slide: Mapping[str, Annotations]
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Collector:
    """Collects the features of one file: checks and repairs them, and records the repairs.

    Parameters
    ----------
    path
        The file, for messages.
    """

    path: Path
    items: list[Annotation] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    vertices: int = 0
    crossings: int = 0

    def record_repair(self, feature: str, geometry: BaseGeometry) -> None:
        """Record why a geometry is repaired."""
        self.repairs.append(f"{feature}: {shapely.is_valid_reason(geometry)}, repaired")

    def add(
        self,
        feature: str,
        geometry: BaseGeometry,
        class_name: str,
        source: str,
        weight: float = 1.0,
        *,
        holes: BaseGeometry | None = None,
        lesion: Lesion | None = None,
    ) -> None:
        """Check, repair and add one feature.

        Parameters
        ----------
        feature
            Its name for messages, such as ``feature 3``.
        geometry
            Any geometry in level-0 pixels, ``(x, y)``; parts that are not areas are skipped, and
            that is recorded.
        class_name, source, weight, lesion
            See `Annotation`.
        holes
            Valid area to cut out.
        """
        self.vertices += int(shapely.get_num_coordinates(geometry))
        if self.vertices > limits().vertices:
            raise AnnotationError(
                f"{self.path}: got too many vertices at {feature}; {advice('vertices')}, or split "
                "the file"
            )
        if not geometry.is_valid:
            self.crossings += require_repairable(self.path, feature, geometry)
            if self.crossings > _FILE_CROSSINGS * limits().crossings:
                raise AnnotationError(
                    f"{self.path}: its outlines cross themselves too often, up to {feature}; "
                    f"{advice('crossings')} in an outline"
                )
            self.record_repair(feature, geometry)
        repaired = repair(geometry)
        if holes is not None and repaired.intersects(holes):
            repaired = shapely.difference(repaired, holes)
            if repaired.is_empty:
                self.repairs.append(f"{feature}: it is inside a hole, skipped")
                return
        found = _polygons(repaired)
        parts = [p for p in found if p.area >= SLIVER_PX2]
        dropped = len(found) - len(parts)
        if not parts:
            self.repairs.append(f"{feature}: a {geometry.geom_type} without area, skipped")
            return
        if dropped:
            self.repairs.append(f"{feature}: {counted(dropped, 'sliver')} below 1 px², skipped")
        area = parts[0] if len(parts) == 1 else MultiPolygon(parts)
        self.items.append(Annotation(area, class_name, source, weight, lesion))

    def result(self, extent: Extent | None = None) -> Annotations:
        """Return the collected annotations."""
        return Annotations(tuple(self.items), tuple(self.repairs), extent)


def require_repairable(path: Path, feature: str, geometry: BaseGeometry) -> int:
    """Refuse an outline that crosses itself so often that a repair would take hours.

    Returns
    -------
    int
        Approximate number of crossings, estimated from the bounding boxes of sampled sides.

    Raises
    ------
    AnnotationError
        If there are too many.
    """
    points = shapely.get_coordinates(geometry)
    low, high = np.minimum(points[:-1], points[1:]), np.maximum(points[:-1], points[1:])
    sides = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    sample = sides[:: max(1, len(sides) // _SAMPLED_SIDES)]
    pairs = int(shapely.STRtree(sides).query(sample).shape[1])
    # The box of each side intersects itself and its two neighbours.
    crossings: int = max(0, pairs - 3 * len(sample)) * len(sides) // max(1, len(sample)) // 2
    if crossings > limits().crossings:
        raise AnnotationError(
            f"{path}: {feature} crosses itself about {crossings} times; {advice('crossings')}, or "
            "draw it again"
        )
    return crossings


def require_class(path: Path, feature: str, class_name: str | None) -> str:
    """Return the class of a feature if it has one.

    Raises
    ------
    AnnotationError
        If it has no class.
    """
    if not class_name:
        raise AnnotationError(
            f"{path}: {feature} has no class; name one in the file, or give --default-class"
        )
    return class_name


def repair(geometry: BaseGeometry) -> BaseGeometry:
    """Return an outline as a valid geometry: the union of its parts, each minus its holes."""
    if geometry.is_valid and geometry.geom_type != "GeometryCollection":
        return geometry
    return shapely.union_all([_repaired(part) for part in _polygons(geometry)])


def _repaired(part: Polygon) -> BaseGeometry:
    # Rings are repaired one by one, because GEOS turns a hole outside its shell into a part.
    shell, *holes = (
        shapely.make_valid(Polygon(ring), method="structure", keep_collapsed=False)
        for ring in (part.exterior, *part.interiors)
    )
    return shapely.difference(shell, shapely.union_all(holes))


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    """Return the polygons in any geometry, at any depth."""
    if isinstance(geometry, Polygon):
        return [geometry]
    if not isinstance(geometry, BaseMultipartGeometry):
        return []
    return [part for inner in geometry.geoms for part in _polygons(inner)]


def ring(path: Path, feature: str, points: object) -> list[tuple[float, float]]:
    """Parse the vertices of one ring.

    Parameters
    ----------
    path, feature
        File and feature, for messages.
    points
        Sequence of ``[x, y]`` or ``[x, y, z]``, closed or not.

    Raises
    ------
    AnnotationError
        If it is not a list of finite numbers, or has fewer than three vertices.
    """
    if not isinstance(points, Sequence) or isinstance(points, str):
        raise AnnotationError(f"{path}: {feature}: got {type(points).__name__}; expected vertices")
    vertices = []
    for number, point in enumerate(points):
        try:
            x, y = float(point[0]), float(point[1])
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise AnnotationError(
                f"{path}: {feature}: vertex {number} is {str(point)[:60]!r}; expected [x, y]"
            ) from error
        if not (math.isfinite(x) and math.isfinite(y)):
            raise AnnotationError(
                f"{path}: {feature}: vertex {number} is ({x}, {y}); expected finite numbers"
            )
        vertices.append((x, y))
    if len(set(vertices)) < 3:
        raise AnnotationError(
            f"{path}: {feature}: got {counted(len(set(vertices)), 'different point')}; expected "
            "at least 3"
        )
    return vertices


def polygon(path: Path, feature: str, rings: object) -> Polygon:
    """Return the polygon of an outer ring and its holes; rings need not be closed or valid."""
    if not isinstance(rings, Iterable) or isinstance(rings, str):
        raise AnnotationError(f"{path}: {feature}: got no rings; expected a list of them")
    checked = [ring(path, feature, points) for points in rings]
    if not checked:
        raise AnnotationError(f"{path}: {feature}: got no rings; expected at least one")
    return Polygon(checked[0], checked[1:])
