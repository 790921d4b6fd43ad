"""Owns what an annotation is: one valid polygon with a class name and a source."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry, BaseMultipartGeometry

from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits

Area = Polygon | MultiPolygon

# Parts below this many px² are slivers left by drawing tools, not structures.
SLIVER_PX2 = 1.0

# Sides looked at to see how often an outline crosses itself.
_SAMPLED_SIDES = 500
_FILE_TIMES = 10


@dataclass(frozen=True, slots=True)
class Lesion:
    """Structure of a volume, of which each slice shows a part.

    Parameters
    ----------
    name
        The same on all slices, and no other lesion's.
    diameter_mm
        Of the whole, whatever a slice shows of it.
    """

    name: str
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class Annotation:
    """One outlined structure.

    Parameters
    ----------
    geometry
        Valid polygon, or several with one meaning, ``(x, y)`` in level-0 pixels; holes kept.
    class_name
        Name of the class.
    source
        Who drew it, for example ``expert``, ``hand``, ``pseudo``, ``external`` or ``review``.
    weight
        How much it counts in training, 0 to 1.
    lesion
        What it is a slice of; None where it is a structure on its own.
    """

    geometry: Area
    class_name: str
    source: str = "expert"
    weight: float = 1.0
    lesion: Lesion | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """All structures of one slide, in drawing order: later ones are over earlier ones.

    Parameters
    ----------
    items
        The structures.
    repairs
        What had to be repaired or left out, one sentence each.
    extent
        Size of the image that the file says it belongs to, None where it says nothing.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> drawn = Annotations((Annotation(box(0, 0, 9, 9), "gland", "a.geojson"),))
    >>> drawn.items[0].class_name
    'gland'
    """

    items: tuple[Annotation, ...]
    repairs: tuple[str, ...] = ()
    extent: Extent | None = None


@dataclass(frozen=True, slots=True)
class AnnotationSets:
    """Annotations of a file that names its slides itself.

    Parameters
    ----------
    by_slide
        Of each slide that the file names.
    strangers
        Names of its images that fit no slide.
    notes
        What of the file was not understood or had to be guessed, one sentence each.
    """

    by_slide: Mapping[str, Annotations]
    strangers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Collector:
    """Gathers the features of one file: checks them, repairs what it can, notes what it did.

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

    def note_repair(self, feature: str, geometry: BaseGeometry) -> None:
        """Note what is wrong with a geometry that will be repaired."""
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
        """Take one feature.

        Parameters
        ----------
        feature
            How the file calls it, for messages; for example ``feature 3``.
        geometry
            Any geometry in level-0 pixels; what is not an area is left out and noted.
        class_name, source, weight, lesion
            See `Annotation`.
        holes
            Valid area that is cut out.
        """
        self.vertices += int(shapely.get_num_coordinates(geometry))
        if self.vertices > limits().vertices:
            raise AnnotationError(
                f"{self.path}: got too many vertices at {feature}; {advice('vertices')}, or split "
                "the file"
            )
        if not geometry.is_valid:
            self.crossings += require_repairable(self.path, feature, geometry)
            if self.crossings > _FILE_TIMES * limits().crossings:
                raise AnnotationError(
                    f"{self.path}: its outlines cross themselves too often up to {feature}; "
                    f"{advice('crossings')} in an outline"
                )
            self.note_repair(feature, geometry)
        repaired = repair(geometry)
        if holes is not None and repaired.intersects(holes):
            repaired = shapely.difference(repaired, holes)
            if repaired.is_empty:
                self.repairs.append(f"{feature}: it is within areas that are cut out, left out")
                return
        found = _polygons(repaired)
        parts = [p for p in found if p.area >= SLIVER_PX2]
        dropped = len(found) - len(parts)
        if not parts:
            self.repairs.append(f"{feature}: a {geometry.geom_type} without area, left out")
            return
        if dropped:
            self.repairs.append(f"{feature}: {dropped} slivers below 1 px², left out")
        area = parts[0] if len(parts) == 1 else MultiPolygon(parts)
        self.items.append(Annotation(area, class_name, source, weight, lesion))

    def result(self, extent: Extent | None = None) -> Annotations:
        """Everything gathered."""
        return Annotations(tuple(self.items), tuple(self.repairs), extent)


def require_repairable(path: Path, feature: str, geometry: BaseGeometry) -> int:
    """Refuse an outline that crosses itself so often that repairing it would take hours.

    Returns
    -------
    int
        About how many pairs of its sides cross, estimated from their boxes on a sample.

    Raises
    ------
    AnnotationError
        If there are too many.
    """
    places = shapely.get_coordinates(geometry)
    low, high = np.minimum(places[:-1], places[1:]), np.maximum(places[:-1], places[1:])
    sides = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    sample = sides[:: max(1, len(sides) // _SAMPLED_SIDES)]
    pairs = int(shapely.STRtree(sides).query(sample).shape[1])
    # Each side meets itself and its two neighbours.
    crossings: int = max(0, pairs - 3 * len(sample)) * len(sides) // max(1, len(sample)) // 2
    if crossings > limits().crossings:
        raise AnnotationError(
            f"{path}: {feature} crosses itself about {crossings} times; {advice('crossings')}, or "
            "draw it again"
        )
    return crossings


def require_class(path: Path, feature: str, class_name: str | None) -> str:
    """Return the class of a feature.

    Raises
    ------
    AnnotationError
        If there is none.
    """
    if not class_name:
        raise AnnotationError(
            f"{path}: {feature} names no class; name one in the file, or give --default-class"
        )
    return class_name


def repair(geometry: BaseGeometry) -> BaseGeometry:
    """Give the valid geometry that an outline means: its parts without their holes, united."""
    if geometry.is_valid and geometry.geom_type != "GeometryCollection":
        return geometry
    return shapely.union_all([_repaired(part) for part in _polygons(geometry)])


def _repaired(part: Polygon) -> BaseGeometry:
    # Each ring alone, because GEOS makes a part of a hole that is outside.
    shell, *holes = (
        shapely.make_valid(Polygon(ring), method="structure", keep_collapsed=False)
        for ring in (part.exterior, *part.interiors)
    )
    return shapely.difference(shell, shapely.union_all(holes))


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    """Polygons inside any geometry, at any depth; lines and points have none."""
    if isinstance(geometry, Polygon):
        return [geometry]
    if not isinstance(geometry, BaseMultipartGeometry):
        return []
    return [part for inner in geometry.geoms for part in _polygons(inner)]


def ring(path: Path, feature: str, points: object) -> list[tuple[float, float]]:
    """Check the vertices of one ring, as a file spells them.

    Parameters
    ----------
    path, feature
        For messages.
    points
        Sequence of ``[x, y]`` or ``[x, y, z]``; whether it is closed does not matter.

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
            f"{path}: {feature}: got {len(set(vertices))} different vertices; expected at least 3"
        )
    return vertices


def polygon(path: Path, feature: str, rings: object) -> Polygon:
    """Polygon of an outer ring and its holes; a ring need not be closed, nor valid."""
    if not isinstance(rings, Iterable) or isinstance(rings, str):
        raise AnnotationError(f"{path}: {feature}: got no rings; expected a list of them")
    checked = [ring(path, feature, points) for points in rings]
    if not checked:
        raise AnnotationError(f"{path}: {feature}: got no rings; expected at least one")
    return Polygon(checked[0], checked[1:])
