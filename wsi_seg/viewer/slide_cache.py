"""Owns the slides that are being looked at: opened once, with their objects and reviews."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_seg.allocator import give_back_freed_memory
from wsi_seg.errors import StoreNotFoundError
from wsi_seg.evaluation.review_objects import (
    MOST,
    ReviewObject,
    list_review_objects,
    outline_truth,
)
from wsi_seg.evaluation.traced_objects import trace_objects, trace_truth
from wsi_seg.exporting.names import file_name
from wsi_seg.viewer.catalog import Catalog, SlideView
from wsi_seg.viewer.objects import Around, SlideObjects

if TYPE_CHECKING:
    from wsi_seg.models.promptable import Promptable

# Slides whose layers and objects are kept open.
_KEPT = 4


@dataclass(slots=True)
class Opened:
    """A slide that is being looked at, and its objects once somebody asked for them."""

    view: SlideView
    lock: threading.Lock = field(default_factory=threading.Lock)
    objects: SlideObjects | None = None
    truth: SlideObjects | None = None


class SlideCache:
    """Keeps the slides that are being looked at open, the last few of them.

    Parameters
    ----------
    catalog
        What there is.
    review
        Folder of the reviews; None where nothing may be written.
    weight
        How much what was reviewed counts in training, 0 to 1.
    sam
        Outlines what is clicked; None where there is no such model.
    """

    def __init__(
        self,
        catalog: Catalog,
        review: Path | None,
        weight: float = 1.0,
        sam: "Promptable | None" = None,
    ) -> None:
        self.catalog = catalog
        self.review = review
        self.weight = weight
        self.sam = sam
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._lock = threading.Lock()

    def opened(self, name: str, *, fresh: bool = False) -> Opened:
        """Slide by name; ``fresh`` looks at the disk again."""
        with self._lock:
            if not fresh and name in self._opened:
                self._opened.move_to_end(name)
                return self._opened[name]
        opened = Opened(self.catalog.view(name))
        with self._lock:
            before = self._opened.get(name)
            if before is not None and _same(before.view, opened.view):
                opened = before
            self._opened[name] = opened
            self._opened.move_to_end(name)
            while len(self._opened) > _KEPT:
                self._opened.popitem(last=False)
        return opened

    def objects(self, name: str) -> SlideObjects:
        """Objects of a slide, made by the first who asks."""
        opened = self.opened(name)
        with opened.lock:
            if opened.objects is None:
                view = opened.view
                objects = list_review_objects(view.slide, view.found, view.true)
                opened.objects = _findable(
                    objects, lambda box: trace_objects(view.slide, view.found, view.true, box)
                )
                give_back_freed_memory()
            return opened.objects

    def truth(self, name: str) -> SlideObjects:
        """Outline the true objects of a slide that has a prediction too."""
        opened = self.opened(name)
        with opened.lock:
            if opened.truth is None:
                view = opened.view
                objects = outline_truth(view.slide, view.found, view.true)
                opened.truth = _findable(
                    objects, lambda box: trace_truth(view.slide, view.found, view.true, box)
                )
                give_back_freed_memory()
            return opened.truth

    def review_file(self, name: str) -> Path:
        """Review of a slide that the catalog names; see `SlideView`.

        Raises
        ------
        StoreNotFoundError
            If nothing is reviewed here.
        """
        self.opened(name)
        if self.review is None:
            raise StoreNotFoundError("this viewer was started without review")
        return self.review / file_name(name, ".geojson")


def _findable(objects: list[ReviewObject], around: Around) -> SlideObjects:
    """Objects that were listed, and with them those for which the list had no room."""
    return SlideObjects(objects, around if len(objects) >= MOST else None)


def _same(one: SlideView, other: SlideView) -> bool:
    """Whether two looks at a slide saw the same arrays."""

    def versions(view: SlideView) -> list[object]:
        return [
            (name, array.path, array.version)
            for name, layer in view.layers.items()
            for array in layer.source.arrays
        ]

    return versions(one) == versions(other)
