"""Owns reading LabelMe JSON: polygons, rectangles, circles, lines, points and masks."""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shapely.affinity import translate
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, box
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import Annotations, Collector, polygon
from wsi_seg.annotations.rle import encode_rle, outline_runs, read_runs
from wsi_seg.annotations.sizes import stated_extent
from wsi_seg.counts import counted
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits

# Line width and point radius with which LabelMe itself draws masks.
_LINE_WIDTH_PX = 10.0
_POINT_RADIUS_PX = 5.0

# Shape types whose points are the vertices of an outline; old versions write null for polygons.
_OUTLINES = ("polygon", "None", "rotation", "oriented_rectangle", "quadrilateral")


def is_labelme(document: object) -> bool:
    """Return whether parsed JSON looks like LabelMe."""
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read_labelme(path: Path, document: dict[str, object]) -> Annotations:
    """Read LabelMe shapes; each label is a class name.

    Parameters
    ----------
    path
        The file, for messages.
    document
        The parsed JSON.
    """
    shapes = document["shapes"]
    if not isinstance(shapes, list):
        raise AnnotationError(f"{path}: got {type(shapes).__name__} as shapes; expected a list")
    collector = Collector(path)
    for number, shape in enumerate(shapes):
        name = f"shape {number}"
        label = _label(shape)
        if not label:
            raise AnnotationError(f"{path}: {name} has no label; expected a class name")
        collector.add(name, _shape(path, name, shape), label, "expert")
    return collector.result(_extent(path, document))


def _label(shape: object) -> str:
    label = shape.get("label") if isinstance(shape, dict) else None
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)
    return label.strip() if isinstance(label, str) else ""


def _extent(path: Path, document: Mapping[str, object]) -> Extent | None:
    height, width = document.get("imageHeight"), document.get("imageWidth")
    if height is None or width is None:
        return None
    return stated_extent(f"{path}: imageHeight and imageWidth", height, width)


def _shape(path: Path, name: str, shape: Mapping[str, object]) -> BaseGeometry:
    kind, points = str(shape.get("shape_type", "polygon")), shape.get("points")
    if kind in _OUTLINES or (kind == "rectangle" and isinstance(points, list) and len(points) == 4):
        return polygon(path, name, [points])
    pairs = _pairs(path, name, points)
    if kind == "mask" and len(pairs) == 2:
        return _mask(path, name, shape.get("mask"), pairs)
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
    raise AnnotationError(
        f"{path}: {name}: got a {kind!r} of {counted(len(pairs), 'point')}; expected a "
        "shape of LabelMe"
    )


def _mask(path: Path, name: str, encoded: object, box: list[tuple[float, float]]) -> BaseGeometry:
    """Outline a mask; the corners of its box are its first and last pixel."""
    x, y, x_last, y_last = (int(number) for corner in box for number in corner)
    mask = _decode_mask(path, name, encoded)
    height, width = mask.shape
    if (height, width) != (y_last - y + 1, x_last - x + 1):
        raise AnnotationError(
            f"{path}: {name}: got a mask of {width} x {height} px in a box of "
            f"{x_last - x + 1} x {y_last - y + 1}; expected the same"
        )
    runs = read_runs(encode_rle(mask, dialect="absolute"), dialect="absolute")
    return MultiPolygon([translate(part, x, y) for part in outline_runs(runs, height)])


def _decode_mask(path: Path, name: str, encoded: object) -> NDArray[np.bool_]:
    """Decode a base64-encoded PNG to a mask, ``(H, W)`` bool."""
    try:
        content = io.BytesIO(base64.b64decode(str(encoded), validate=True))
        with Image.open(content, formats=["PNG"]) as picture:
            if picture.width * picture.height <= limits().tile_pixels:
                return np.asarray(picture.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise AnnotationError(
            f"{path}: {name}: got a mask that cannot be read; expected a PNG in base64"
        ) from error
    raise AnnotationError(f"{path}: {name}: its mask is too large; {advice('tile_pixels')}")


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
