"""Owns the picture of a whole slide: one level, area-averaged to a size, read band by band."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_seg.geometry import Extent, Region
from wsi_seg.store.multiscale import Multiscale

# A slide with few levels must not be in memory at a fine one: bands of at most this many pixels.
_BAND_PX = 2**23


def thumbnail_extent(full: Extent, longest_px: int) -> Extent:
    """Size of a picture whose longer side is at most ``longest_px``; never larger than full."""
    return full.scaled(max(1.0, max(full.height, full.width) / longest_px))


def read_thumbnail(image: Multiscale, size: Extent) -> NDArray[np.uint8]:
    """Whole image at a size no larger than its level 0, ``(H, W, 3)`` uint8 RGB.

    Reads the coarsest level that is still as fine as the size; memory depends on the size and
    the width of that level.
    """
    full = image.pyramid.extent
    wanted = max(full.height / size.height, full.width / size.width)
    level = image.pyramid.level_at_or_below(wanted)
    extent = image.pyramid.extents[level]
    pixels = np.empty((size.height, size.width, 3), dtype=np.uint8)
    bands = min(size.height, -(-extent.area // _BAND_PX))
    edges = np.linspace(0, size.height, bands + 1).astype(int).tolist()
    for top, bottom in pairwise(edges):
        y = top * extent.height // size.height
        y_end = max(y + 1, bottom * extent.height // size.height)
        region = Region(level=level, y=y, x=0, height=y_end - y, width=extent.width)
        band = image.read(region, cached=False)  # it is not read again
        small = Image.fromarray(band).resize((size.width, bottom - top), Image.Resampling.BOX)
        pixels[top:bottom] = np.asarray(small)
    return pixels
