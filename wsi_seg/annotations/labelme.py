"""Owns reading LabelMe JSON: polygons, rectangles, circles, lines, line strips and points."""

import math
from pathlib import Path

from shapely.geometry import GeometryCollection, LineString, Point, box
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import Annotations, Collector, polygon
from wsi_seg.errors import AnnotationError, RegionError
from wsi_seg.geometry import Extent

# LabelMe draws lines and points this wide, in pixels, when it makes masks of them.
_LINE_WIDTH_PX = 10.0
_POINT_RADIUS_PX = 5.0


def is_labelme(document: object) -> bool:
    """Whether parsed JSON looks like LabelMe's."""
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read_labelme(path: Path, document: dict[str, object]) -> Annotations:
    """Read LabelMe shapes; each label is a class name.

    Parameters
    ----------
    path
        The file, for messages.
    document
        Its parsed JSON.
    """
    shapes = document["shapes"]
    if not isinstance(shapes, list):
        raise AnnotationError(f"{path}: got {type(shapes).__name__} as shapes; expected a list")
    collector = Collector(path)
    for number, shape in enumerate(shapes):
        name = f"shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise AnnotationError(f"{path}: {name} has no label; expected a class name")
        geometry = _shape(path, name, str(shape.get("shape_type", "polygon")), shape.get("points"))
        collector.add(name, geometry, label.strip(), "expert")
    return collector.result(_extent(path, document))


def _extent(path: Path, document: dict[str, object]) -> Extent | None:
    height, width = document.get("imageHeight"), document.get("imageWidth")
    if height is None or width is None:
        return None
    try:
        return Extent(height=int(str(height)), width=int(str(width)))
    except (ValueError, RegionError) as error:
        raise AnnotationError(
            f"{path}: got imageHeight {height!r}, imageWidth {width!r}; expected whole numbers"
        ) from error


def _shape(path: Path, name: str, kind: str, points: object) -> BaseGeometry:
    if kind == "polygon":
        return polygon(path, name, [points])
    pairs = _pairs(path, name, points)
    if kind == "rectangle" and len(pairs) == 2:
        (x1, y1), (x2, y2) = pairs
        return box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    if kind == "circle" and len(pairs) == 2:
        return Point(pairs[0]).buffer(math.dist(*pairs), quad_segs=32)
    if kind in ("line", "linestrip") and len(pairs) >= 2:
        return LineString(pairs).buffer(_LINE_WIDTH_PX / 2)
    if kind == "point" and len(pairs) == 1:
        return Point(pairs[0]).buffer(_POINT_RADIUS_PX)
    if kind == "points":
        return GeometryCollection([Point(pair).buffer(_POINT_RADIUS_PX) for pair in pairs])
    raise AnnotationError(f"{path}: {name}: got a {kind!r} of {len(pairs)} points; cannot draw it")


def _pairs(path: Path, name: str, points: object) -> list[tuple[float, float]]:
    pairs = []
    for point in points if isinstance(points, list) else []:
        try:
            x, y = float(point[0]), float(point[1])
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise AnnotationError(
                f"{path}: {name}: got point {point!r}; expected [x, y]"
            ) from error
        if not (math.isfinite(x) and math.isfinite(y)):
            raise AnnotationError(f"{path}: {name}: got point ({x}, {y}); expected finite numbers")
        pairs.append((x, y))
    return pairs
