"""Owns the density of objects: the fractions of each pixel that are found, false, or missed.

The viewer shows densities where objects are too small or too many to outline. They are estimated
from a few samples per pixel, so a tile costs the same for ten objects as for a million.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE
from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale

# Samples along each side of a pixel of a coarser level; at the finest level a pixel has one class.
_SAMPLES = 2

Pixels = NDArray[np.uint8]


def coverage_reader(
    pairs: Sequence[tuple[Multiscale, Multiscale | None]],
) -> Callable[[Region], Pixels]:
    """Make a reader of densities at the levels of the first label map.

    Parameters
    ----------
    pairs
        Label maps of the prediction and of the truth, which may be None; one pair, or one per class
        if classes overlap. Without a prediction, the truth and None.

    Returns
    -------
    Callable[[Region], Pixels]
        Returns ``(H, W, 3)`` uint8, fraction * 255. The channels are: found (and true, if the truth
        is known), found but not true, true but not found. Pixels that the truth ignores count as
        neither false nor missed.
    """
    pyramid = pairs[0][0].pyramid

    def read(region: Region) -> Pixels:
        extent = pyramid.extents[region.level]
        samples = _SAMPLES if region.level else 1
        shape = (region.height * samples, region.width * samples)
        parts = np.zeros((3, *shape), dtype=np.bool_)
        for label, true in pairs:
            found = _ids(label, extent, region, samples)
            anything = (found > 0) & (found != IGNORE)
            if true is None:
                parts[0] |= anything
                continue
            ids = _ids(true, extent, region, samples)
            expected = label.classes.recoding(true.classes)[ids]
            wrong = (found != expected) & (expected != IGNORE)
            parts[0] |= anything & ~wrong
            parts[1] |= anything & wrong
            parts[2] |= wrong & (expected > 0)
        return np.stack([_fractions(part.view(np.uint8), samples) for part in parts], axis=2)

    return read


def _fractions(part: Pixels, samples: int) -> Pixels:
    """Return the fraction of each pixel's samples that are 1, times 255."""
    counts = np.zeros(part[::samples, ::samples].shape, dtype=np.uint8)
    if not part.any():  # two of three channels without a truth
        return counts
    for y in range(samples):  # thirty times faster than a sum over reshaped axes
        for x in range(samples):
            counts += part[y::samples, x::samples]
    fractions: Pixels = (np.arange(samples**2 + 1) * 255 // samples**2).astype(np.uint8)[counts]
    return fractions


def _ids(label: Multiscale, extent: Extent, region: Region, samples: int) -> Pixels:
    """Read class ids with several samples along each side of each pixel."""
    fine = Extent(height=extent.height * samples, width=extent.width * samples)
    y, x, height, width = (
        side * samples for side in (region.y, region.x, region.height, region.width)
    )
    return read_label(label, fine, y, x, height=height, width=width)
