"""Owns the label map that inference decides on: written with a prediction, or computed from it.

Class ids are 1 + channel: a class table numbers its classes 1, 2, 3 ... and a prediction has one
channel for each. All is decided by the whole numbers that are stored, so a label map that is
computed later is the one that inference would have written.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import ClassMode
from wsi_seg.geometry import Region
from wsi_seg.reading.readable import destination
from wsi_seg.store import Multiscale, SlideStore
from wsi_seg.store.names import PREDICTION_LABEL
from wsi_seg.store.slide_store import planes_error

__all__ = ["background", "label_map", "predicted_label", "predicted_planes"]

# Rows of probabilities that are held at a time: a chunk's.
_ROWS = 512


def background(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Probability of the background next to exclusive classes: what these leave of 255.

    Each of them was rounded, so together they may have more than 255; then it is 0.

    Parameters
    ----------
    probability
        ``(..., C)`` uint8, value / 255.

    Returns
    -------
    NDArray[np.uint8]
        ``(...)``, value / 255.

    Examples
    --------
    >>> background(np.array([[100, 55], [128, 128]], dtype=np.uint8)).tolist()
    [100, 0]
    """
    left: NDArray[np.uint8] = np.full(probability.shape[:-1], 255, dtype=np.uint8)
    for channel in range(probability.shape[-1]):  # a sum would take eight bytes for each pixel
        left -= np.minimum(left, probability[..., channel])
    return left


def label_map(probability: NDArray[np.uint8], mode: ClassMode | None = None) -> NDArray[np.uint8]:
    """Class ids of uint8 probabilities: the most probable class where it is above one half, else 0.

    Parameters
    ----------
    probability
        ``(H, W, C)`` uint8, value / 255; channel ``c`` belongs to class id ``c + 1``.
    mode
        Exclusive classes have to be above the `background` in place of one half. Of overlapping
        ones each is decided on its own.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W)`` class ids, of equal probabilities the lowest; of overlapping classes
        ``(H, W, C)``, see `ClassTable.planes`.
    """
    if mode == "overlapping":
        own = np.arange(1, probability.shape[2] + 1, dtype=np.uint8)
        return (probability > 127).view(np.uint8) * own
    if probability.shape[2] == 1:  # above one half is above what it leaves of 255, too
        return (probability[:, :, 0] > 127).view(np.uint8)
    ids = np.zeros(probability.shape[:2], dtype=np.uint8)
    best = np.full(ids.shape, 127, dtype=np.uint8)
    if mode == "exclusive":
        best = background(probability)
    for channel in range(probability.shape[2]):  # argmax would take eight bytes for each pixel
        better = probability[:, :, channel] > best
        ids[better] = channel + 1
        np.maximum(best, probability[:, :, channel], out=best)
    return ids


def predicted_label(store: SlideStore, name: str = PREDICTION_LABEL) -> Multiscale:
    """Label map of a prediction of one id for each pixel; see `predicted_planes`.

    Raises
    ------
    StoreError
        If there is no such label, or it has a plane for each class; see `store.class_view`.
    """
    found = predicted_planes(store, name)
    if found.channels is not None:
        raise planes_error(store.name, name)
    return found


def predicted_planes(store: SlideStore, name: str = PREDICTION_LABEL) -> Multiscale:
    """Label map of a prediction, computed as it is read where only probabilities were saved.

    Parameters
    ----------
    store
        The prediction.
    name
        What inference decided on, or a label that was written next to it later.

    Returns
    -------
    Multiscale
        With a plane for each class where classes overlap.

    Raises
    ------
    StoreError
        If there is no such label.
    """
    if name != PREDICTION_LABEL or store.saved != "probabilities":
        return store.planes(name)
    image = store.probabilities
    return _Computed(
        path=image.path,
        name=PREDICTION_LABEL,
        pyramid=image.pyramid,
        channels=image.classes.planes,
        attributes=image.attributes,
        arrays=image.arrays,
        image=image,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Computed(Multiscale):
    """Label map of probabilities; each of its levels is decided from theirs."""

    image: Multiscale

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Class ids of a region; memory holds few rows of probabilities."""
        mode, planes = self.classes.mode, () if self.channels is None else (self.channels,)
        ids = destination((region.height, region.width, *planes), out)
        for rows in region.strips(_ROWS):
            own = slice(rows.y - region.y, rows.y_end - region.y)
            ids[own] = label_map(self.image.read(rows, cached=cached), mode)
        return ids
