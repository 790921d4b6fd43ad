"""Owns a cache of open slides with their objects."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_seg.allocator import give_back_freed_memory
from wsi_seg.errors import StoreNotFoundError
from wsi_seg.evaluation.review_objects import (
    MAX_OBJECTS,
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

# Number of slides to keep open.
_SIZE = 4


@dataclass(slots=True)
class Opened:
    """An open slide, and its objects once they were requested."""

    view: SlideView
    lock: threading.Lock = field(default_factory=threading.Lock)
    objects: SlideObjects | None = None
    truth: SlideObjects | None = None


class SlideCache:
    """LRU cache of open slides.

    Parameters
    ----------
    catalog
        Slides and predictions.
    review
        Folder of reviews; None makes the viewer read-only.
    weight
        Weight of reviewed annotations in training, 0 to 1.
    sam
        Promptable model that outlines clicked objects; None disables clicks.
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
        """Return an open slide; ``fresh`` opens it again, in case its stores changed."""
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
            while len(self._opened) > _SIZE:
                self._opened.popitem(last=False)
        return opened

    def objects(self, name: str) -> SlideObjects:
        """Return the objects of a slide, which the first call computes."""
        opened = self.opened(name)
        with opened.lock:
            if opened.objects is None:
                view = opened.view
                objects = list_review_objects(view.slide, view.found, view.true)
                opened.objects = _indexed(
                    objects, lambda box: trace_objects(view.slide, view.found, view.true, box)
                )
                give_back_freed_memory()
            return opened.objects

    def truth(self, name: str) -> SlideObjects:
        """Return the true objects of a slide with a prediction, which the first call computes."""
        opened = self.opened(name)
        with opened.lock:
            if opened.truth is None:
                view = opened.view
                objects = outline_truth(view.slide, view.found, view.true)
                opened.truth = _indexed(
                    objects, lambda box: trace_truth(view.slide, view.found, view.true, box)
                )
                give_back_freed_memory()
            return opened.truth

    def review_file(self, name: str) -> Path:
        """Return the path of a slide's review.

        Raises
        ------
        StoreNotFoundError
            If there is no such slide, or the viewer is read-only.
        """
        self.opened(name)
        if self.review is None:
            raise StoreNotFoundError("this viewer was started without --review")
        return self.review / file_name(name, ".geojson")


def _indexed(objects: list[ReviewObject], around: Around) -> SlideObjects:
    """Index objects; ``around`` traces further ones if the list is full."""
    return SlideObjects(objects, around if len(objects) >= MAX_OBJECTS else None)


def _same(one: SlideView, other: SlideView) -> bool:
    """Return whether two snapshots of a slide have the same arrays."""

    def versions(view: SlideView) -> list[object]:
        return [
            (name, array.path, array.version)
            for name, layer in view.layers.items()
            for array in layer.source.arrays
        ]

    return versions(one) == versions(other)
