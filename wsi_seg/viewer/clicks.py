"""Owns outlining clicked objects with a promptable model."""

from typing import TYPE_CHECKING

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict, Field
from shapely.geometry import Polygon

from wsi_seg.errors import RegionError
from wsi_seg.geometry import Region
from wsi_seg.masks.vectorize import vectorize
from wsi_seg.store import SlideStore
from wsi_seg.viewer.shapes import rings_of

if TYPE_CHECKING:
    from wsi_seg.models.promptable import Promptable

_SIDE_PX = 1024  # side of the model's input
_TOLERANCE_PX = 0.7  # tolerance of outlines, in pixels of that input


class Click(BaseModel):
    """Position of a click in level-0 pixels, and screen pixels per level-0 pixel."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    x: float
    y: float
    zoom: float = Field(gt=0)


def outlined(
    model: "Promptable", slide: SlideStore, click: Click
) -> list[list[tuple[float, float]]]:
    """Outline the clicked object.

    Returns
    -------
    list[list[tuple[float, float]]]
        Rings of ``(x, y)`` in level-0 pixels, the outer one first; [] if the model finds nothing.

    Raises
    ------
    RegionError
        If the click is outside of the slide.
    """
    full = slide.pyramid.extent
    if not (0 <= click.x < full.width and 0 <= click.y < full.height):
        raise RegionError(f"got x={click.x:g}, y={click.y:g}; the slide has {full}")
    level = slide.pyramid.level_at_or_below(max(1.0, 1 / click.zoom))
    extent = slide.pyramid.extents[level]
    wide, tall = full.width / extent.width, full.height / extent.height
    x, y = click.x / wide, click.y / tall
    left = max(0, min(int(x) - _SIDE_PX // 2, extent.width - _SIDE_PX))
    top = max(0, min(int(y) - _SIDE_PX // 2, extent.height - _SIDE_PX))
    region = Region(level=level, y=top, x=left, height=_SIDE_PX, width=_SIDE_PX).clip(extent)
    pixels = np.zeros((_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    pixels[: region.height, : region.width] = slide.image.read(region)
    mask = model.mask(pixels, x - left, y - top)[: region.height, : region.width]
    shapes = [polygon for _, polygon in vectorize([(0, mask.astype(np.uint8))])]
    if not shapes:
        return []
    place = shapely.Point(x - left, y - top)
    nearest = min(shapes, key=lambda shape: (shape.distance(place), -shape.area))
    corner = np.array([left, top])
    simple = nearest.simplify(_TOLERANCE_PX)
    outline = simple if isinstance(simple, Polygon) else nearest
    return rings_of(shapely.transform(outline, lambda xy: (xy + corner) * (wide, tall)))
