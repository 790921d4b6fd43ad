"""Owns the class ``boundary``: strips that separate touching objects in a label map."""

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from wsi_seg.annotations import Annotation

BOUNDARY = "boundary"


def separate(items: Sequence[Annotation], width_px: float) -> tuple[Annotation, ...]:
    """Return strips between objects whose distance is at most a width.

    Parameters
    ----------
    items
        Objects; overlapping ones get a strip over their intersection.
    width_px
        Width of the strip between two touching objects, in level-0 pixels.

    Returns
    -------
    tuple of Annotation
        Strips of the class ``boundary``, to draw over the objects.
    """
    areas = np.array([item.geometry for item in items], dtype=object)
    tree = shapely.STRtree(areas)
    left, right = tree.query(areas, predicate="dwithin", distance=width_px)
    once = left < right
    grown = shapely.buffer(areas, width_px / 2)
    strips = shapely.intersection(grown[left[once]], grown[right[once]])
    return tuple(
        Annotation(MultiPolygon(parts), BOUNDARY)
        for strip in strips
        if (parts := [p for p in shapely.get_parts(strip) if isinstance(p, Polygon) and p.area])
    )
