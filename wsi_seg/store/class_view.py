"""Owns views of one class of a slide or a prediction, for classes that overlap.

Code that expects one class id per pixel can then process overlapping classes one by one.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE, ClassEntry, ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Region
from wsi_seg.reading.readable import destination
from wsi_seg.store.multiscale import Multiscale
from wsi_seg.store.slide_store import SlideStore


@dataclass(frozen=True, slots=True, eq=False)
class _View(Multiscale):
    """Image or label computed from some channels of another one when it is read."""

    whole: Multiscale
    channels_read: tuple[int, ...]

    @classmethod
    def of(
        cls,
        whole: Multiscale,
        channels_read: tuple[int, ...],
        *,
        channels: int | None,
        classes: ClassTable,
    ) -> Self:
        changed = {
            "channels": channels,
            "attributes": {**whole.attributes, "classes": classes.to_json()},
        }
        return cls(**whole.parts() | changed, whole=whole, channels_read=channels_read)

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region; see `Multiscale.read`."""
        pixels = self._made(self.whole.read(region, cached=cached)[..., list(self.channels_read)])
        filled = destination(pixels.shape, out)
        filled[...] = pixels
        return filled

    def _made(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Plane(_View):
    """Label of one class: 1 where a plane shows it, else 255 where a plane is ignored, else 0."""

    def _made(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        ids = np.array(self.channels_read, dtype=np.uint8) + 1
        ignored = np.where((found == IGNORE).any(axis=-1), IGNORE, 0)
        return np.where((found == ids).any(axis=-1), 1, ignored).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class _AnyPlane(_View):
    """Label that is 1 where any plane shows its class, else 0."""

    def _made(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shown: NDArray[np.bool_] = ((found > 0) & (found < IGNORE)).any(axis=-1)
        return shown.view(np.uint8)


def _alone(entry: ClassEntry) -> ClassTable:
    return ClassTable.named([entry.name], [entry.colour], [entry.merged])


def plane_of(label: Multiscale, entry: ClassEntry) -> Multiscale:
    """Return the label of one class of a label with planes; other labels are returned unchanged.

    Raises
    ------
    StoreError
        If there is no plane of the class, or of one of its parts.
    """
    if label.channels is None:
        return label
    known = label.classes
    missing = _alone(entry).absent_from(known)
    if missing:
        raise StoreError(
            f"{label.path} has planes of classes {', '.join(known.names)}; expected "
            f"{', '.join(missing)} too"
        )
    wanted = {entry.name, *entry.parts}
    channels = tuple(one.id - 1 for one in known if one.name in wanted)
    return _Plane.of(label, channels, channels=None, classes=_alone(entry))


def channel_of(probabilities: Multiscale, entry: ClassEntry) -> Multiscale:
    """Return the probabilities of one of several overlapping classes; others unchanged."""
    if probabilities.classes.planes is None:
        return probabilities
    channel = (probabilities.classes.id_of(entry.name) - 1,)
    return _View.of(probabilities, channel, channels=1, classes=_alone(entry))


def each_class(label: Multiscale) -> tuple[Multiscale, ...]:
    """Return the label, or if it has planes, one label for each class."""
    if label.channels is None:
        return (label,)
    return tuple(plane_of(label, entry) for entry in label.classes)


def any_plane(label: Multiscale) -> Multiscale:
    """Return a label that is 1 where any plane shows its class; without planes, unchanged."""
    if label.channels is None:
        return label
    every = tuple(range(label.channels))
    return _AnyPlane.of(label, every, channels=None, classes=ClassTable.named(["any"]))


@dataclass(frozen=True, slots=True, eq=False)
class ClassView(SlideStore):
    """A slide or prediction with only one class of its probabilities and of labels with planes.

    Created by `class_view`. Labels with one class id per pixel are unchanged.
    """

    whole: SlideStore
    entry: ClassEntry

    def label_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.whole.label_names()

    def planes(self, name: str) -> Multiscale:
        """Open a label, reduced to this class if it has planes; see `SlideStore.planes`."""
        return plane_of(self.whole.planes(name), self.entry)


def class_view(store: SlideStore, entry: ClassEntry) -> ClassView:
    """Return a view of one class of a slide or a prediction.

    Examples
    --------
    >>> classes = prediction.image.classes  # doctest: +SKIP
    >>> views = [class_view(prediction, entry) for entry in classes]  # doctest: +SKIP
    >>> views[0].image.classes.names  # doctest: +SKIP
    ('gland',)
    """
    image = store.image
    if image.names_classes and image.classes.planes is not None:
        # The image of a prediction saved as labels is a label.
        alone = plane_of if store.saved == "labels" else channel_of
        image = alone(image, entry)
    return ClassView(path=store.path, name=store.name, image=image, whole=store, entry=entry)


def class_views(prediction: SlideStore) -> tuple[SlideStore, ...]:
    """Return the prediction, or if its classes overlap, a view of each class."""
    image = prediction.image
    if not image.names_classes or image.classes.planes is None:
        return (prediction,)
    return tuple(class_view(prediction, entry) for entry in image.classes)
