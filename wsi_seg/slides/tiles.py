"""Owns reading the bytes of tiles by offset, and pasting their pixels into a region."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Region


def pread(path: Path, offset: int, size: int) -> bytes:
    """Read bytes at an offset; thread-safe, because no file handle is shared."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def paste(
    pixels: NDArray[np.generic], y: int, x: int, *, region: Region, out: NDArray[np.generic]
) -> None:
    """Copy the part of a tile that is inside a region.

    Parameters
    ----------
    pixels
        The tile, ``(H, W, S)``.
    y, x
        Position of its first pixel, in pixels of the level.
    region
        The region.
    out
        Pixels of the region, ``(H, W, S)``; changed in place.
    """
    top, left = max(y, region.y), max(x, region.x)
    bottom = min(y + pixels.shape[0], region.y_end)
    right = min(x + pixels.shape[1], region.x_end)
    if top < bottom and left < right:
        part = slice(top - region.y, bottom - region.y), slice(left - region.x, right - region.x)
        out[part] = pixels[top - y : bottom - y, left - x : right - x]
