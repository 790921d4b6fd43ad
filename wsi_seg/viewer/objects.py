"""Owns spatial queries of a slide's objects, and their outlines at screen resolution."""

import heapq
from collections.abc import Callable, Sequence

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from wsi_seg.evaluation.review_objects import ReviewObject
from wsi_seg.evaluation.traced_objects import UNLISTED, Box

Around = Callable[[Box], list[ReviewObject] | None]


class SlideObjects:
    """Objects of one slide, with a spatial index.

    Parameters
    ----------
    items
        Listed objects; an object's id is its index.
    around
        Traces all objects in a box, including those that are not listed; it returns None if there
        are too many. None means that all objects are listed.
    """

    def __init__(self, items: Sequence[ReviewObject], around: Around | None = None) -> None:
        self.items = tuple(items)
        self._around = around
        self._tree = shapely.STRtree([item.polygon for item in self.items])

    def outlines(self, box: Box, tolerance: float, most: int) -> dict[str, object]:
        """Return simplified outlines in a region, or the largest listed ones if there are too many.

        Parameters
        ----------
        box
            x, y, x_end, y_end in level-0 pixels.
        tolerance
            Largest deviation of outlines in level-0 pixels.
        most
            Maximum number of outlines.

        Returns
        -------
        dict[str, object]
            ``outlines``, each with id (null if the object is not listed), status and rings, and
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
        """Return the objects that are not inside a listed object of the same kind."""
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
        "status": item.status,
        "rings": [shapely.get_coordinates(ring).round(1).tolist() for ring in rings],
    }
