"""Owns the label map of a prediction: written by inference, or computed from probabilities.

Class ids are 1 + channel: a class table numbers its classes 1, 2, 3 ... and a prediction has one
channel for each. Labels are computed from the stored uint8 probabilities only, so a label map that
is computed later equals the one that inference would have written.
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

_ROWS = 512  # rows of probabilities in memory, equal to the height of a chunk


def background(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the background probability of exclusive classes: the remainder to 255.

    Rounding may bring the sum of the classes above 255; then the background is 0.

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
    for channel in range(probability.shape[-1]):  # np.sum would need eight bytes per pixel
        left -= np.minimum(left, probability[..., channel])
    return left


def label_map(probability: NDArray[np.uint8], mode: ClassMode | None = None) -> NDArray[np.uint8]:
    """Return the most probable class of each pixel if its probability exceeds one half, else 0.

    Parameters
    ----------
    probability
        ``(H, W, C)`` uint8, value / 255; channel ``c`` belongs to class id ``c + 1``.
    mode
        Exclusive classes are compared with the `background` instead of one half. Overlapping
        classes are decided independently.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W)`` class ids, the lowest one of equal probabilities; for overlapping classes planes
        ``(H, W, C)``, see `ClassTable.planes`.
    """
    if mode == "overlapping":
        own = np.arange(1, probability.shape[2] + 1, dtype=np.uint8)
        return (probability > 127).view(np.uint8) * own
    if probability.shape[2] == 1:  # above one half means above the background, too
        return (probability[:, :, 0] > 127).view(np.uint8)
    ids = np.zeros(probability.shape[:2], dtype=np.uint8)
    best = np.full(ids.shape, 127, dtype=np.uint8)
    if mode == "exclusive":
        best = background(probability)
    for channel in range(probability.shape[2]):  # np.argmax would need eight bytes per pixel
        better = probability[:, :, channel] > best
        ids[better] = channel + 1
        np.maximum(best, probability[:, :, channel], out=best)
    return ids


def predicted_label(store: SlideStore, name: str = PREDICTION_LABEL) -> Multiscale:
    """Open a label map ``(H, W)`` of a prediction; see `predicted_planes`.

    Raises
    ------
    StoreError
        If there is no such label, or it has one plane per class; see `store.class_view`.
    """
    found = predicted_planes(store, name)
    if found.channels is not None:
        raise planes_error(store.name, name)
    return found


def predicted_planes(store: SlideStore, name: str = PREDICTION_LABEL) -> Multiscale:
    """Open a label map of a prediction, computed lazily if only probabilities were saved.

    Parameters
    ----------
    store
        The prediction.
    name
        Label of inference, or one that was added to the prediction later.

    Returns
    -------
    Multiscale
        Class ids ``(H, W)`` uint8; planes ``(H, W, C)`` if classes overlap.

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
    """Label map whose levels are computed from those of the probabilities."""

    image: Multiscale

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Compute class ids of a region, in strips of a few rows of probabilities."""
        mode, planes = self.classes.mode, () if self.channels is None else (self.channels,)
        ids = destination((region.height, region.width, *planes), out)
        for rows in region.strips(_ROWS):
            own = slice(rows.y - region.y, rows.y_end - region.y)
            ids[own] = label_map(self.image.read(rows, cached=cached), mode)
        return ids
