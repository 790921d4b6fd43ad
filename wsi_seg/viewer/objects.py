"""Owns finding a slide's objects by place, and their outlines as fine as a screen shows them."""

import heapq
from collections.abc import Sequence

import shapely
from shapely.geometry import Polygon

from wsi_seg.evaluate.review_objects import ReviewObject


class SlideObjects:
    """Objects of one slide, found by place.

    Parameters
    ----------
    items
        The objects; an object's id is its place here.
    """

    def __init__(self, items: Sequence[ReviewObject]) -> None:
        self.items = tuple(items)
        self._tree = shapely.STRtree([item.polygon for item in self.items])

    def outlines(
        self, box: tuple[float, float, float, float], tolerance: float, most: int
    ) -> list[dict[str, object]]:
        """Outlines inside a region, simplified; the largest ones where there are many.

        Parameters
        ----------
        box
            x, y, x_end, y_end in level-0 pixels.
        tolerance
            Level-0 pixels by which an outline may be off.
        most
            Number of outlines at most.
        """
        hits = self._tree.query(shapely.box(*box)).tolist()
        chosen = heapq.nlargest(most, hits, key=lambda number: self.items[number].area)
        outlines: list[dict[str, object]] = []
        for number in sorted(chosen):
            item = self.items[number]
            simple = item.polygon.simplify(tolerance)
            if not isinstance(simple, Polygon) or simple.is_empty:
                simple = item.polygon
            rings = [simple.exterior, *simple.interiors]
            outlines.append(
                {
                    "id": item.id,
                    "rings": [shapely.get_coordinates(ring).round(1).tolist() for ring in rings],
                }
            )
        return outlines
