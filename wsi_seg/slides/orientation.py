"""Owns how stored pictures are turned upright: the orientation of TIFF and EXIF, 1 to 8.

Viewers and annotation tools show pictures upright, so slides and masks are read that way.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region

# What is undone, in this order: rows and columns swapped, then rows and columns reversed.
_ON_ITS_SIDE = {5, 6, 7, 8}
_BOTTOM_UP = {3, 4, 7, 8}
_RIGHT_TO_LEFT = {2, 3, 6, 7}


def upright[T: np.generic](pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """Turn a stored picture upright.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)``, as stored.
    orientation
        Value of the TIFF or EXIF tag Orientation; what is not 2 to 8 changes nothing.

    Returns
    -------
    NDArray
        A view, ``(H, W, ...)``, or ``(W, H, ...)`` for orientations 5 to 8.

    Examples
    --------
    >>> upright(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    turned = pixels.swapaxes(0, 1) if orientation in _ON_ITS_SIDE else pixels
    turned = turned[::-1] if orientation in _BOTTOM_UP else turned
    return turned[:, ::-1] if orientation in _RIGHT_TO_LEFT else turned


def upright_extent(stored: Extent, orientation: int) -> Extent:
    """Size of a picture when it is upright."""
    if orientation in _ON_ITS_SIDE:
        return Extent(height=stored.width, width=stored.height)
    return stored


def stored_region(region: Region, stored: Extent, orientation: int) -> Region:
    """Find the rectangle of a stored picture that shows a region of the upright one.

    Parameters
    ----------
    region
        In the upright picture.
    stored
        Size of the picture as stored.
    orientation
        See `upright`.
    """
    shown = upright_extent(stored, orientation)
    y = shown.height - region.y_end if orientation in _BOTTOM_UP else region.y
    x = shown.width - region.x_end if orientation in _RIGHT_TO_LEFT else region.x
    if orientation in _ON_ITS_SIDE:
        return Region(level=region.level, y=x, x=y, height=region.width, width=region.height)
    return Region(level=region.level, y=y, x=x, height=region.height, width=region.width)
