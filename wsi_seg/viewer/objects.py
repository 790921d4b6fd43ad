"""Owns finding a slide's objects by place, and their outlines as fine as a screen shows them."""

import heapq
from collections.abc import Sequence
from typing import Literal

import shapely
from shapely.geometry import Polygon

from wsi_seg.evaluation.review_objects import ReviewObject

Status = Literal["found", "false", "missed", "true"]

# A found object with a smaller share of truth is false.
_MOSTLY = 0.5


def status(item: ReviewObject) -> Status:
    """Name what an object is shown as; false is found, but mostly not true."""
    if item.kind == "found" and item.overlap is not None and item.overlap < _MOSTLY:
        return "false"
    return item.kind


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
    ) -> dict[str, object]:
        """Outlines inside a region, simplified; the largest ones where there are many.

        Parameters
        ----------
        box
            x, y, x_end, y_end in level-0 pixels.
        tolerance
            Level-0 pixels by which an outline may be off.
        most
            Number of outlines at most.

        Returns
        -------
        dict[str, object]
            ``outlines``, each with the object's id, status and rings; ``left_out``, how many
            more there are.
        """
        hits = self._tree.query(shapely.box(*box)).tolist()
        chosen = heapq.nlargest(most, hits, key=lambda number: self.items[number].area)
        outlines = [_outline(self.items[number], tolerance) for number in sorted(chosen)]
        return {"outlines": outlines, "left_out": len(hits) - len(chosen)}


def _outline(item: ReviewObject, tolerance: float) -> dict[str, object]:
    simple = item.polygon.simplify(tolerance)
    if not isinstance(simple, Polygon) or simple.is_empty:
        simple = item.polygon
    rings = [simple.exterior, *simple.interiors]
    return {
        "id": item.id,
        "status": status(item),
        "rings": [shapely.get_coordinates(ring).round(1).tolist() for ring in rings],
    }
