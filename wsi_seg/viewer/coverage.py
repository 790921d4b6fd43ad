"""Owns the density of objects: which share of each pixel is found, found wrongly, or missed.

Where objects are too small or too many to outline, shares are all that can be seen of them. They
are counted from a few places in each pixel, so a tile costs the same for ten objects as for a
million.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE
from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale

# Places along each side of a pixel of a coarser level; at the finest level a pixel is one class.
_PLACES = 2

Pixels = NDArray[np.uint8]


def coverage_reader(
    pairs: Sequence[tuple[Multiscale, Multiscale | None]],
) -> Callable[[Region], Pixels]:
    """Reader of shares at the levels of the first label map, ``(H, W, 3)`` uint8, share * 255.

    Parameters
    ----------
    pairs
        Class ids of the prediction and of the truth it is compared with, or None; one pair, or
        where classes overlap one for each class. Without a prediction, the truth and None.

    Returns
    -------
    Callable[[Region], Pixels]
        Channels are: found (and true, where that is known), found and not true, true and not
        found. Pixels that the truth ignores are neither wrong nor missed.
    """
    pyramid = pairs[0][0].pyramid

    def read(region: Region) -> Pixels:
        extent = pyramid.extents[region.level]
        places = _PLACES if region.level else 1
        shape = (region.height * places, region.width * places)
        parts = np.zeros((3, *shape), dtype=np.bool_)
        for label, true in pairs:
            found = _ids(label, extent, region, places)
            anything = (found > 0) & (found != IGNORE)
            if true is None:
                parts[0] |= anything
                continue
            ids = _ids(true, extent, region, places)
            wanted = label.classes.recoding(true.classes)[ids]
            other = (found != wanted) & (wanted != IGNORE)
            parts[0] |= anything & ~other
            parts[1] |= anything & other
            parts[2] |= other & (wanted > 0)
        return np.stack([_shares(part.view(np.uint8), places) for part in parts], axis=2)

    return read


def _shares(part: Pixels, places: int) -> Pixels:
    """Share of each pixel's places that are 1, times 255."""
    counts = np.zeros(part[::places, ::places].shape, dtype=np.uint8)
    if not part.any():  # as are two of three without a truth
        return counts
    for y in range(places):  # a sum over reshaped axes takes thirty times as long
        for x in range(places):
            counts += part[y::places, x::places]
    shares: Pixels = (np.arange(places**2 + 1) * 255 // places**2).astype(np.uint8)[counts]
    return shares


def _ids(label: Multiscale, extent: Extent, region: Region, places: int) -> Pixels:
    """Class ids at so many places along each side of each pixel."""
    fine = Extent(height=extent.height * places, width=extent.width * places)
    y, x, height, width = (
        side * places for side in (region.y, region.x, region.height, region.width)
    )
    return read_label(label, fine, y, x, height=height, width=width)
