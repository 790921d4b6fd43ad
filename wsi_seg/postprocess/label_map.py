"""Owns the label map that inference decides on: written with a prediction, or computed from it.

Class ids are 1 + channel: a class table numbers its classes 1, 2, 3 ... and a model has one
channel for each.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Region
from wsi_seg.reading.readable import destination
from wsi_seg.store import Multiscale, SlideStore
from wsi_seg.store.names import PREDICTION_LABEL

__all__ = ["label_map", "predicted_label"]

# Rows of probabilities that are held at a time: a chunk's.
_ROWS = 512


def label_map(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids of uint8 probabilities: the most probable class where it is above one half, else 0.

    Parameters
    ----------
    probability
        ``(H, W, C)`` uint8, value / 255; channel ``c`` belongs to class id ``c + 1``.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W)`` class ids. Of equal probabilities the first class wins.
    """
    if probability.shape[2] == 1:
        return (probability[:, :, 0] > 127).view(np.uint8)
    ids = np.zeros(probability.shape[:2], dtype=np.uint8)
    best = np.full(probability.shape[:2], 127, dtype=np.uint8)
    for channel in range(probability.shape[2]):  # argmax would take eight bytes for each pixel
        better = probability[:, :, channel] > best
        ids[better] = channel + 1
        np.maximum(best, probability[:, :, channel], out=best)
    return ids


def predicted_label(store: SlideStore, name: str = PREDICTION_LABEL) -> Multiscale:
    """Label map of a prediction, computed as it is read where only probabilities were saved.

    Parameters
    ----------
    store
        The prediction.
    name
        What inference decided on, or a label that was written next to it later.

    Raises
    ------
    StoreError
        If there is no such label.
    """
    if name != PREDICTION_LABEL or store.saved != "probabilities":
        return store.label(name)
    image = store.probabilities
    return _Computed(
        path=image.path,
        name=PREDICTION_LABEL,
        pyramid=image.pyramid,
        channels=None,
        attributes=image.attributes,
        arrays=image.arrays,
    )


class _Computed(Multiscale):
    """Label map of probabilities; each of its levels is decided from theirs."""

    __slots__ = ()

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Class ids of a region, ``(H, W)``; memory holds few rows of probabilities."""
        ids = destination((region.height, region.width), out)
        for rows in region.strips(_ROWS):
            own = slice(rows.y - region.y, rows.y_end - region.y)
            ids[own] = label_map(Multiscale.read(self, rows, cached=cached))
        return ids
