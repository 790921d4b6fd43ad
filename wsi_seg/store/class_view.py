"""Owns looking at one class of a slide or a prediction alone: classes that overlap are read so.

What reads one id for each pixel then takes any of them, one class after the other.
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
    """Image or label that is made of some channels of another one, as it is read."""

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
        """Pixels of a region; see `Multiscale.read`."""
        pixels = self._made(self.whole.read(region, cached=cached)[..., list(self.channels_read)])
        filled = destination(pixels.shape, out)
        filled[...] = pixels
        return filled

    def _made(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Plane(_View):
    """Label of one class, whose id is 1: 255 where one of its planes is and none shows it."""

    def _made(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        ids = np.array(self.channels_read, dtype=np.uint8) + 1
        ignored = np.where((found == IGNORE).any(axis=-1), IGNORE, 0)
        return np.where((found == ids).any(axis=-1), 1, ignored).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class _AnyPlane(_View):
    """Label that is 1 wherever a plane shows its class."""

    def _made(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shown: NDArray[np.bool_] = ((found > 0) & (found < IGNORE)).any(axis=-1)
        return shown.view(np.uint8)


def _alone(entry: ClassEntry) -> ClassTable:
    return ClassTable.named([entry.name], [entry.colour], [entry.merged])


def plane_of(label: Multiscale, entry: ClassEntry) -> Multiscale:
    """Label of one class, of a label with planes; one without is given back.

    Raises
    ------
    StoreError
        If it has no plane of the class, or of one of its parts.
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
    """Probabilities of one class, of classes that overlap; others are given back."""
    if probabilities.classes.planes is None:
        return probabilities
    channel = (probabilities.classes.id_of(entry.name) - 1,)
    return _View.of(probabilities, channel, channels=1, classes=_alone(entry))


def each_class(label: Multiscale) -> tuple[Multiscale, ...]:
    """Give the label, or where it has planes the label of each class alone."""
    if label.channels is None:
        return (label,)
    return tuple(plane_of(label, entry) for entry in label.classes)


def any_plane(label: Multiscale) -> Multiscale:
    """Label whose pixels are not 0 where any class is shown; one without planes is given back."""
    if label.channels is None:
        return label
    every = tuple(range(label.channels))
    return _AnyPlane.of(label, every, channels=None, classes=ClassTable.named(["any"]))


@dataclass(frozen=True, slots=True, eq=False)
class ClassView(SlideStore):
    """A slide or a prediction whose labels with planes, and probabilities, are of one class.

    Made by `class_view`. Labels of one id for each pixel are as they are.
    """

    whole: SlideStore
    entry: ClassEntry

    def label_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.whole.label_names()

    def planes(self, name: str) -> Multiscale:
        """Label of this class, or one without planes; see `SlideStore.planes`."""
        return plane_of(self.whole.planes(name), self.entry)


def class_view(store: SlideStore, entry: ClassEntry) -> ClassView:
    """One class of a slide, or of a prediction, alone.

    Examples
    --------
    >>> classes = prediction.image.classes  # doctest: +SKIP
    >>> views = [class_view(prediction, entry) for entry in classes]  # doctest: +SKIP
    >>> views[0].image.classes.names  # doctest: +SKIP
    ('gland',)
    """
    image = store.image
    if image.names_classes and image.classes.planes is not None:
        # What is known of a prediction of class ids is kept with its image.
        alone = plane_of if store.saved == "labels" else channel_of
        image = alone(image, entry)
    return ClassView(path=store.path, name=store.name, image=image, whole=store, entry=entry)


def class_views(prediction: SlideStore) -> tuple[SlideStore, ...]:
    """Give the prediction, or where its classes overlap a view of each."""
    image = prediction.image
    if not image.names_classes or image.classes.planes is None:
        return (prediction,)
    return tuple(class_view(prediction, entry) for entry in image.classes)
