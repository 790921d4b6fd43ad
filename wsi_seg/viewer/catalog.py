"""Owns which slides the viewer shows: names come from the opened collections, never from paths."""

from collections.abc import Mapping
from dataclasses import dataclass

from wsi_seg.errors import StoreError, StoreNotFoundError
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore, Stores
from wsi_seg.viewer.layers import Layer, slide_layers


@dataclass(frozen=True, slots=True)
class SlideView:
    """One slide as it is on disk now.

    Parameters
    ----------
    slide
        Its store.
    found
        Its prediction, where there is one.
    true
        The label that counts as the truth, where the slide has it.
    layers
        By id, the image first.
    """

    slide: SlideStore
    found: SlideStore | None
    true: Multiscale | None
    layers: Mapping[str, Layer]

    def layer(self, name: str) -> Layer:
        """One layer.

        Raises
        ------
        StoreNotFoundError
            If there is none of this id.
        """
        if name not in self.layers:
            raise StoreNotFoundError(
                f"slide {self.slide.name}: got layer {name[:80]!r}; it has: "
                f"{', '.join(self.layers)}"
            )
        return self.layers[name]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The collections that are looked at.

    Parameters
    ----------
    slides
        Collection of the slides.
    predictions
        Collection of their predictions, or None.
    truth
        Name of the label that counts as the truth.
    """

    slides: Collection
    predictions: Predictions | None
    truth: str

    def names(self) -> tuple[str, ...]:
        """Slides to choose from, sorted.

        Raises
        ------
        StoreNotFoundError
            If the collection is gone.
        """
        return self._listed(self.slides)

    def slide(self, name: str) -> SlideStore:
        """Open one slide alone.

        Raises
        ------
        StoreNotFoundError
            If the collection has no such slide, or is gone.
        StoreError
            If the slide is damaged.
        """
        if name not in self.names():
            raise StoreNotFoundError(f"got slide {name[:80]!r}; expected one of the list")
        return self.slides[name]

    def view(self, name: str) -> SlideView:
        """Open one slide with all its layers.

        Raises
        ------
        StoreNotFoundError
            If the collection has no such slide, or is gone.
        StoreError
            If the slide, or its prediction, is damaged.
        """
        slide, found = self.slide(name), None
        if self.predictions is not None and name in self._listed(self.predictions):
            found = self.predictions[name]
        true = slide.planes(self.truth) if self.truth in slide.label_names() else None
        return SlideView(slide, found, true, slide_layers(slide, found, self.truth))

    def require_slides(self) -> None:
        """Refuse collections with nothing to show.

        Raises
        ------
        StoreError
            If there is no slide, or none of the predictions belongs to one.
        """
        names = self.names()
        if not names:
            raise StoreError(f"{self.slides.path} holds no slides; run `wsi-seg tile` first")
        if self.predictions is None:
            return
        predicted = self._listed(self.predictions)
        if not set(predicted) & set(names):
            raise StoreError(
                f"{self.predictions.path} has predictions of {', '.join(predicted) or 'nothing'}, "
                f"{self.slides.path} has slides {', '.join(names)}; expected the same names"
            )

    def _listed(self, collection: Stores) -> tuple[str, ...]:
        try:
            return collection.names()
        except OSError as error:
            raise StoreNotFoundError(
                f"{collection.path} is gone; start the viewer again"
            ) from error
