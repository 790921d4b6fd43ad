"""Owns reading a label map or probabilities in strips, repeatedly."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Region
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.reading.channels import largest
from wsi_seg.store import Multiscale

STRIP_PX = 512


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Rows of a prediction.

    Parameters
    ----------
    y
        Index of the first row.
    ids
        ``(h, W)`` uint8 class ids.
    probability
        ``(h, W)`` uint8 probability of each pixel's class, value / 255.
    """

    y: int
    ids: NDArray[np.uint8]
    probability: NDArray[np.uint8]


# Each call starts again at the top, because a decision needs several passes.
Source = Callable[[], Iterator[Strip]]


def argmax_strips(image: Multiscale, *, strip_px: int = STRIP_PX) -> Source:
    """Return the most probable class of each pixel, and its probability, without a threshold.

    Ties take the lowest id. Pixels are background if all probabilities are 0 or, for exclusive
    classes, if the background is more probable.
    """
    exclusive = image.names_classes and image.classes.is_exclusive

    def strips() -> Iterator[Strip]:
        for strip, rows in _read(image, strip_px):
            if rows.ndim != 3:
                raise StoreError(f"{image.path} is a label; expected the probabilities")
            probability = largest(rows)
            if exclusive:
                ids = label_map(rows, "exclusive")
            elif rows.shape[2] == 1:
                ids = (probability > 0).astype(np.uint8)
            else:
                ids = ((rows.argmax(axis=2) + 1) * (probability > 0)).astype(np.uint8)
            yield Strip(strip.y, ids, probability)

    return strips


def certain_label_strips(label: Multiscale, *, strip_px: int = STRIP_PX) -> Source:
    """Return class ids with probability 1, for predictions without saved probabilities."""

    def strips() -> Iterator[Strip]:
        for strip, ids in _read(label, strip_px):
            yield Strip(strip.y, ids, np.where(ids > 0, 255, 0).astype(np.uint8))

    return strips


def label_strips(
    label: Multiscale, image: Multiscale | None = None, *, strip_px: int = STRIP_PX
) -> Source:
    """Return class ids of a label map, with the probabilities of these classes in a prediction.

    The probability is 0 without a prediction, or if the class is not one of its channels.

    Raises
    ------
    StoreError
        If the sizes differ.
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
