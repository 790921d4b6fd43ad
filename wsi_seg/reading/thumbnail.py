"""Owns thumbnails: one level of a slide, area-averaged to a size, read band by band."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_seg.geometry import Extent, Pyramid, Region

# Pixels per band: bounds memory for slides that have only fine levels.
_BAND_PX = 2**23


def thumbnail_extent(full: Extent, longest_px: int) -> Extent:
    """Return the size whose longer side is at most ``longest_px``; never larger than ``full``."""
    return full.scaled(max(1.0, max(full.height, full.width) / longest_px))


def area_averaged(
    pyramid: Pyramid, read: Callable[[Region], NDArray[np.uint8]], size: Extent
) -> NDArray[np.uint8]:
    """Return the whole image at a size no larger than level 0, ``(H, W, 3)`` uint8 RGB.

    Reads the coarsest level that is at least as fine as ``size``. Memory is bounded by ``size`` and
    one band of that level.

    Parameters
    ----------
    pyramid
        Pyramid of the image.
    read
        Reads a region as ``(H, W, 3)`` uint8.
    size
        Size of the result.
    """
    full = pyramid.extent
    level = pyramid.level_at_or_below(max(full.height / size.height, full.width / size.width))
    extent = pyramid.extents[level]
    pixels = np.empty((size.height, size.width, 3), dtype=np.uint8)
    bands = min(size.height, -(-extent.area // _BAND_PX))
    edges = np.linspace(0, size.height, bands + 1).astype(int).tolist()
    for top, bottom in pairwise(edges):
        y = top * extent.height // size.height
        y_end = max(y + 1, bottom * extent.height // size.height)
        band = read(Region(level=level, y=y, x=0, height=y_end - y, width=extent.width))
        small = Image.fromarray(band).resize((size.width, bottom - top), Image.Resampling.BOX)
        pixels[top:bottom] = np.asarray(small)
    return pixels
