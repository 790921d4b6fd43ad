"""Owns polygons without holes, for formats whose polygons have none."""

from collections.abc import Iterator

import numpy as np
import shapely
from shapely.geometry import Polygon


def without_holes(polygon: Polygon) -> Iterator[Polygon]:
    """Parts of a polygon that have no holes: it is cut along a line through the middle hole."""
    if not polygon.interiors:
        yield polygon
        return
    x, y, x_end, y_end = polygon.bounds
    middles = sorted((hole.bounds[0] + hole.bounds[2]) / 2 for hole in polygon.interiors)
    # A quarter of a pixel from its border, so that no pixel's centre is on the line.
    cut = np.rint((middles[len(middles) // 2] - 0.25) * 2) / 2 + 0.25
    halves = shapely.intersection(
        polygon, [shapely.box(x, y, cut, y_end), shapely.box(cut, y, x_end, y_end)]
    )
    for part in shapely.get_parts(halves):
        if isinstance(part, Polygon):  # or a side along the line
            yield from without_holes(part)
