"""Owns the thumbnail of a slide or a prediction in notebooks."""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.notebook import LONGEST_PX
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store.multiscale import Multiscale


def small_picture(image: Multiscale) -> NDArray[np.uint8] | None:
    """Render a slide, or a prediction in the colours of its classes, as ``(H, W, 3)`` uint8 RGB.

    Returns None for an image without classes that is not RGB.
    """
    if not image.names_classes:
        return image.thumbnail(LONGEST_PX) if image.channels == 3 else None
    size = thumbnail_extent(image.pyramid.extent, LONGEST_PX)
    # Nearest neighbours are good enough for a thumbnail.
    values = read_label(image, size, 0, 0, height=size.height, width=size.width)
    if image.channels is None:
        shares = np.stack([values == entry.id for entry in image.classes], axis=-1) * 1.0
    else:
        shares = values / 255
    picture = np.full((*shares.shape[:2], 3), 255.0)
    for channel, entry in enumerate(image.classes):
        share = shares[:, :, channel, None]
        picture = picture * (1 - share) + np.array(entry.rgb) * share
    drawn: NDArray[np.uint8] = np.rint(picture).astype(np.uint8)
    return drawn
