"""Owns which slides the viewer shows: only names listed by the collections, never paths."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from wsi_seg.counts import list_names
from wsi_seg.errors import StoreError, StoreNotFoundError
from wsi_seg.files.object_path import object_path
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore, Stores
from wsi_seg.viewer.layers import Layer, slide_layers


@dataclass(frozen=True, slots=True)
class SlideView:
    """Snapshot of one slide's stores.

    Parameters
    ----------
    slide
        Store of the slide.
    found
        Its prediction, if there is one.
    true
        Ground-truth label, if the slide has it.
    layers
        Layers by id, the image first.
    """

    slide: SlideStore
    found: SlideStore | None
    true: Multiscale | None
    layers: Mapping[str, Layer]

    def layer(self, name: str) -> Layer:
        """Return a layer by its id.

        Raises
        ------
        StoreNotFoundError
            If there is no such layer.
        """
        if name not in self.layers:
            raise StoreNotFoundError(
                f"slide {self.slide.name}: got layer {name[:80]!r}; expected one of "
                f"{', '.join(self.layers)}"
            )
        return self.layers[name]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Collections that the viewer shows.

    Parameters
    ----------
    slides
        Collection of slides.
    predictions
        Predictions of the slides, or None.
    truth
        Name of the ground-truth label.
    """

    slides: Collection
    predictions: Predictions | None
    truth: str

    def names(self) -> tuple[str, ...]:
        """List the names of the slides, sorted.

        Raises
        ------
        StoreNotFoundError
            If the collection was removed.
        """
        return self._listed(self.slides)

    def slide(self, name: str) -> SlideStore:
        """Open the store of one slide.

        Raises
        ------
        StoreNotFoundError
            If the collection has no such slide, or was removed.
        StoreError
            If the slide is damaged.
        """
        if not self._has(self.slides, name):
            raise StoreNotFoundError(f"got slide {name[:80]!r}; expected one of the list")
        return self.slides[name]

    def view(self, name: str) -> SlideView:
        """Open one slide with its prediction and all layers.

        Raises
        ------
        StoreNotFoundError
            If the collection has no such slide, or was removed.
        StoreError
            If the slide, or its prediction, is damaged.
        """
        slide, found = self.slide(name), None
        if self.predictions is not None and self._has(self.predictions, name):
            found = self.predictions[name]
        true = slide.planes(self.truth) if self.truth in slide.label_names() else None
        layers = slide_layers(slide, found, self.truth)
        for layer in layers.values():
            layer.source.read_levels()
        return SlideView(slide, found, true, layers)

    def require_slides(self) -> None:
        """Require at least one slide, and one prediction of a slide if there are predictions.

        Raises
        ------
        StoreError
            If there is no slide, or no prediction belongs to a slide.
        """
        names = self.names()
        if not names:
            raise StoreError(f"{self.slides.path} has no slides; run `wsi-seg tile` first")
        if self.predictions is None:
            return
        predicted = self._listed(self.predictions)
        if not set(predicted) & set(names):
            raise StoreError(
                f"{self.predictions.path} has predictions of {list_names(predicted)}, "
                f"{self.slides.path} has slides {list_names(names)}; expected the same names"
            )

    def _has(self, collection: Stores, name: str) -> bool:
        """Return whether a collection has a store, without listing those of a folder."""
        with _reading(collection):
            if name in collection:
                return True
            if object_path(collection.path) is None:
                collection.path.stat()  # fails if it was removed
            return False

    def _listed(self, collection: Stores) -> tuple[str, ...]:
        with _reading(collection):
            return collection.names()


@contextmanager
def _reading(collection: Stores) -> Iterator[None]:
    """Convert the error of a collection that was removed."""
    try:
        yield
    except OSError as error:
        raise StoreNotFoundError(f"{collection.path} is gone; start the viewer again") from error
