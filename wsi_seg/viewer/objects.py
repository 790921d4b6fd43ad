"""Owns finding a slide's objects by place, and their outlines as fine as a screen shows them."""

import heapq
from collections.abc import Callable, Sequence
from typing import Literal

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from wsi_seg.evaluation.review_objects import ReviewObject
from wsi_seg.evaluation.traced_objects import UNLISTED, Box

Around = Callable[[Box], list[ReviewObject] | None]
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
        The objects that are listed; an object's id is its place here.
    around
        Gives all objects in a box, where more are there than are listed, or None where there are
        too many; without it, all are listed.
    """

    def __init__(self, items: Sequence[ReviewObject], around: Around | None = None) -> None:
        self.items = tuple(items)
        self._around = around
        self._tree = shapely.STRtree([item.polygon for item in self.items])

    def outlines(self, box: Box, tolerance: float, most: int) -> dict[str, object]:
        """Outlines inside a region, simplified; the largest listed ones where there are many.

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
            ``outlines``, each with the object's id (null where it is not listed), status and rings;
            ``left_out``, whether there are more.
        """
        hits = [self.items[number] for number in self._tree.query(shapely.box(*box)).tolist()]
        more = [] if self._around is None or len(hits) > most else self._around(box)
        left_out = more is None or len(hits) + len(more) > most
        if left_out:
            shown = heapq.nlargest(most, hits, key=lambda item: item.area)
        else:
            shown = hits + self._unlisted(more or [])
        return {"outlines": _outlines(shown, tolerance), "left_out": left_out}

    def _unlisted(self, objects: list[ReviewObject]) -> list[ReviewObject]:
        """Objects that are not listed too: nothing of their kind is where they are."""
        inside = shapely.point_on_surface([item.polygon for item in objects])
        listed = {
            traced
            for traced, known in self._tree.query(inside, predicate="within").T.tolist()
            if self.items[known].kind == objects[traced].kind
        }
        return [item for number, item in enumerate(objects) if number not in listed]


def _outlines(items: Sequence[ReviewObject], tolerance: float) -> list[dict[str, object]]:
    simple = shapely.simplify([item.polygon for item in items], tolerance)
    return [_outline(*pair) for pair in zip(items, simple, strict=True)]


def _outline(item: ReviewObject, simple: BaseGeometry) -> dict[str, object]:
    if not isinstance(simple, Polygon) or simple.is_empty:
        simple = item.polygon
    rings = [simple.exterior, *simple.interiors]
    return {
        "id": None if item.id == UNLISTED else item.id,
        "status": status(item),
        "rings": [shapely.get_coordinates(ring).round(1).tolist() for ring in rings],
    }
