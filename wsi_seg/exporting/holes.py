"""Owns splitting polygons with holes, for formats that do not support holes."""

from collections.abc import Iterator

import numpy as np
import shapely
from shapely.geometry import Polygon


def without_holes(polygon: Polygon) -> Iterator[Polygon]:
    """Split a polygon recursively along vertical lines through holes until no part has a hole."""
    if not polygon.interiors:
        yield polygon
        return
    x, y, x_end, y_end = polygon.bounds
    middles = sorted((hole.bounds[0] + hole.bounds[2]) / 2 for hole in polygon.interiors)
    # A quarter of a pixel from a pixel border, so that the line meets no pixel centre.
    cut = np.rint((middles[len(middles) // 2] - 0.25) * 2) / 2 + 0.25
    halves = shapely.intersection(
        polygon, [shapely.box(x, y, cut, y_end), shapely.box(cut, y, x_end, y_end)]
    )
    for part in shapely.get_parts(halves):
        if isinstance(part, Polygon):  # not an edge that runs along the line
            yield from without_holes(part)
