"""Owns rectangles, pyramids and tile grids: pure geometry, without pixels or files."""

from wsi_seg.geometry.grid import TileGrid, axis_starts
from wsi_seg.geometry.pyramid import Pyramid, dyadic_extents, extend_pyramid
from wsi_seg.geometry.region import Extent, Region

__all__ = [
    "Extent",
    "Pyramid",
    "Region",
    "TileGrid",
    "axis_starts",
    "dyadic_extents",
    "extend_pyramid",
]
