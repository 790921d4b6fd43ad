"""Owns reading a slide's label map or probabilities in strips, as often as one likes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Region
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.store import Multiscale

STRIP_PX = 512


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Rows of a slide.

    Parameters
    ----------
    y
        First row.
    ids
        ``(h, W)`` uint8 class ids.
    probability
        ``(h, W)`` uint8, value / 255: of each pixel's class.
    """

    y: int
    ids: NDArray[np.uint8]
    probability: NDArray[np.uint8]


# Each call starts again at the top: a decision needs the whole slide before its first row.
Source = Callable[[], Iterator[Strip]]


def argmax_strips(image: Multiscale, *, strip_px: int = STRIP_PX) -> Source:
    """Most probable class of each pixel of a prediction, and its probability, without a threshold.

    Of equal probabilities the lowest id wins. A pixel where all are 0 is background; so is one
    whose background is more probable, where classes are exclusive.
    """
    exclusive = image.names_classes and image.classes.is_exclusive

    def strips() -> Iterator[Strip]:
        for strip, rows in _read(image, strip_px):
            if rows.ndim != 3:
                raise StoreError(f"{image.path} is a label; expected a prediction")
            probability = rows[:, :, 0] if rows.shape[2] == 1 else rows.max(axis=2)
            if exclusive:
                ids = label_map(rows, "exclusive")
            elif rows.shape[2] == 1:
                ids = (probability > 0).astype(np.uint8)
            else:
                ids = ((rows.argmax(axis=2) + 1) * (probability > 0)).astype(np.uint8)
            yield Strip(strip.y, ids, probability)

    return strips


def certain_label_strips(label: Multiscale, *, strip_px: int = STRIP_PX) -> Source:
    """Pixels of a label map, each class with probability 1: where probabilities were not saved."""

    def strips() -> Iterator[Strip]:
        for strip, ids in _read(label, strip_px):
            yield Strip(strip.y, ids, np.where(ids > 0, 255, 0).astype(np.uint8))

    return strips


def label_strips(
    label: Multiscale, image: Multiscale | None = None, *, strip_px: int = STRIP_PX
) -> Source:
    """Pixels of a label map, each with the probability of its class in a prediction of equal size.

    Without a prediction, or where the class is not one of its channels, it is 0.

    Raises
    ------
    StoreError
        If the two differ in size.
    """
    if image is not None and image.pyramid.extent != label.pyramid.extent:
        raise StoreError(
            f"label {label.name!r} has {label.pyramid.extent}, prediction {image.name!r} "
            f"{image.pyramid.extent}; expected the same level"
        )

    def strips() -> Iterator[Strip]:
        for strip, ids in _read(label, strip_px):
            probability = np.zeros_like(ids)
            if image is not None:
                channels = image.read(strip, cached=False)
                for channel in range(channels.shape[2]):
                    np.copyto(probability, channels[:, :, channel], where=ids == channel + 1)
            yield Strip(strip.y, ids, probability)

    return strips


def _read(image: Multiscale, strip_px: int) -> Iterator[tuple[Region, NDArray[np.uint8]]]:
    for strip in image.pyramid.extent.strips(strip_px):
        yield strip, image.read(strip, cached=False)
