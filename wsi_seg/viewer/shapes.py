"""Owns editing drawn shapes by a stroke: merge, erase, split and fill, with holes."""

from collections.abc import Sequence
from typing import Annotated, Literal

import shapely
from pydantic import BaseModel, ConfigDict, Field
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import split, unary_union

Vertex = tuple[Annotated[float, Field(ge=-1e7, le=1e7)], Annotated[float, Field(ge=-1e7, le=1e7)]]
Ring = Annotated[list[Vertex], Field(min_length=3, max_length=20_000)]
Rings = Annotated[list[Ring], Field(min_length=1, max_length=1_000)]  # outer ring, then holes

# Smaller pieces are slivers of imprecise strokes.
_LEAST_PX2 = 4.0


class Edit(BaseModel):
    """Edit of shapes, in level-0 pixels.

    Parameters
    ----------
    operation
        ``merge`` unites the area of the stroke and all shapes that it touches; ``erase`` subtracts
        that area; ``split`` cuts along the stroke; ``fill`` fills holes.
    shapes
        Rings of each shape, the outer one first.
    stroke
        Closed for ``merge`` and ``erase``, open for ``split``; not used by ``fill``.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    operation: Literal["merge", "erase", "split", "fill"]
    shapes: list[Rings] = Field(max_length=10_000)
    stroke: list[Vertex] = Field(default_factory=list, max_length=20_000)


def edited(edit: Edit) -> list[list[list[list[tuple[float, float]]]]]:
    """Apply an edit, and return the resulting shapes of each shape, as lists of rings.

    A shape may result in no, one or several shapes. Shapes that the stroke does not touch are
    unchanged. Merged shapes become one, which replaces the first of them.

    Examples
    --------
    >>> ring = [(0, 0), (10, 0), (10, 10), (0, 10)]
    >>> edit = Edit(operation="split", shapes=[[ring]], stroke=[(5, -1), (5, 11)])
    >>> len(edited(edit)[0])
    2
    """
    shapes = [polygon_of(rings) for rings in edit.shapes]
    if edit.operation == "fill":
        return [[rings_of(Polygon(part.exterior)) for part in _parts(shape)] for shape in shapes]
    least = 2 if edit.operation == "split" else 3
    if len(edit.stroke) < least:
        return [[rings_of(part) for part in _parts(shape)] for shape in shapes]
    if edit.operation == "split":
        stroke: BaseGeometry = LineString(edit.stroke)
        results = [_split(shape, stroke) for shape in shapes]
    else:
        stroke = shapely.make_valid(Polygon(edit.stroke))
        results = (_erased if edit.operation == "erase" else _merged)(shapes, stroke)
    return [[rings_of(part) for part in _parts(result)] for result in results]


def polygon_of(rings: Sequence[Sequence[tuple[float, float]]]) -> BaseGeometry:
    """Make a valid geometry of rings, the outer one first."""
    return shapely.make_valid(Polygon(rings[0], rings[1:]))


def _erased(shapes: Sequence[BaseGeometry], stroke: BaseGeometry) -> list[BaseGeometry]:
    return [shape.difference(stroke) if shape.intersects(stroke) else shape for shape in shapes]


def _merged(shapes: Sequence[BaseGeometry], stroke: BaseGeometry) -> list[BaseGeometry]:
    touched = [number for number, shape in enumerate(shapes) if shape.intersects(stroke)]
    if not touched:
        return list(shapes)
    whole = unary_union([shapes[number] for number in touched] + [stroke])
    merged = list(shapes)
    for number in touched:
        merged[number] = Polygon()
    merged[touched[0]] = whole
    return merged


def _split(shape: BaseGeometry, stroke: BaseGeometry) -> BaseGeometry:
    """Cut along a stroke; one that ends inside the shape does not split it."""
    if not shape.intersects(stroke):
        return shape
    return shapely.GeometryCollection(
        [piece for part in _parts(shape) for piece in split(part, stroke).geoms]
    )


def _parts(shape: BaseGeometry) -> list[Polygon]:
    parts = shapely.get_parts(shapely.get_parts(shape))
    return [part for part in parts if isinstance(part, Polygon) and part.area >= _LEAST_PX2]


def rings_of(part: Polygon) -> list[list[tuple[float, float]]]:
    """Return the rings of a polygon, the outer one first, not closed."""
    rings = [part.exterior, *part.interiors]
    return [
        [(x, y) for x, y in shapely.get_coordinates(ring)[:-1].round(2).tolist()] for ring in rings
    ]
