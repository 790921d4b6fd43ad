"""Owns applying the Orientation tag of TIFF and EXIF, 1 to 8.

Viewers and annotation tools show images upright, so slides and masks are read that way.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region

# Applied in this order: transpose, then flip rows and columns.
_TRANSPOSED = {5, 6, 7, 8}
_FLIPPED_ROWS = {3, 4, 7, 8}
_FLIPPED_COLUMNS = {2, 3, 6, 7}


def upright[T: np.generic](pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """Apply an orientation to stored pixels, so that the image is upright.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)``, as stored.
    orientation
        Value of the TIFF or EXIF tag Orientation; values other than 2 to 8 change nothing.

    Returns
    -------
    NDArray
        A view, ``(H, W, ...)``, or ``(W, H, ...)`` for orientations 5 to 8.

    Examples
    --------
    >>> upright(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    turned = pixels.swapaxes(0, 1) if orientation in _TRANSPOSED else pixels
    turned = turned[::-1] if orientation in _FLIPPED_ROWS else turned
    return turned[:, ::-1] if orientation in _FLIPPED_COLUMNS else turned


def upright_extent(stored: Extent, orientation: int) -> Extent:
    """Return the size of an image after its orientation is applied."""
    if orientation in _TRANSPOSED:
        return Extent(height=stored.width, width=stored.height)
    return stored


def stored_region(region: Region, stored: Extent, orientation: int) -> Region:
    """Return the region of the stored image that corresponds to a region of the upright one.

    Parameters
    ----------
    region
        Region of the upright image.
    stored
        Size of the image as stored.
    orientation
        See `upright`.
    """
    shown = upright_extent(stored, orientation)
    y = shown.height - region.y_end if orientation in _FLIPPED_ROWS else region.y
    x = shown.width - region.x_end if orientation in _FLIPPED_COLUMNS else region.x
    if orientation in _TRANSPOSED:
        return Region(level=region.level, y=x, x=y, height=region.width, width=region.height)
    return Region(level=region.level, y=y, x=x, height=region.height, width=region.width)
