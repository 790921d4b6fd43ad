"""Owns the bytes of tiles: read and pasted by position; what a JPEG stream says of itself."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.slides.claims import ImageKind, claimed_extent, jpeg_segments, require_claim

_JFIF, _ADOBE = 0xE0, 0xEE


def pread(path: Path, offset: int, size: int) -> bytes:
    """Read bytes at a place; threads need no lock, since no handle is shared."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def paste(
    pixels: NDArray[np.generic], y: int, x: int, *, region: Region, out: NDArray[np.generic]
) -> None:
    """Copy the part of a tile that lies in a region.

    Parameters
    ----------
    pixels
        The tile, ``(H, W, S)``.
    y, x
        Place of its first px in the level.
    region
        What is read.
    out
        Px of the region, ``(H, W, S)``.
    """
    top, left = max(y, region.y), max(x, region.x)
    bottom = min(y + pixels.shape[0], region.y_end)
    right = min(x + pixels.shape[1], region.x_end)
    if top < bottom and left < right:
        place = slice(top - region.y, bottom - region.y), slice(left - region.x, right - region.x)
        out[place] = pixels[top - y : bottom - y, left - x : right - x]


def jpeg_colours_unmarked(data: bytes) -> bool:
    """Whether a JPEG stream leaves open if its three components are YCbCr or RGB."""
    return not any(marker in {_JFIF, _ADOBE} for marker, _ in jpeg_segments(data))


def require_sound(data: bytes, kind: ImageKind, tile: Extent) -> None:
    """Refuse a stream that claims too many px, or JPEG that is cut off, before it is decoded.

    Raises
    ------
    ValueError
        If it is so.
    """
    require_claim(data, kind, tile)
    if kind == "jpeg" and not jpeg_is_whole(data):
        raise ValueError("its JPEG stream is cut off")


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG stream has its end, and bytes for its px.

    Decoders fill what is missing without a word. Where it is not progressive, every 64 px take at
    least two bits: one Huffman code for the mean, one for the end of the block.
    """
    scan = data.find(b"\xff\xda", sum(2 + 2 + len(body) for _, body in jpeg_segments(data)))
    extent = claimed_extent(data, "jpeg")
    if scan < 0 or extent is None or data.rfind(b"\xff\xd9") < scan:
        return False
    sequential = any(marker in {0xC0, 0xC1} for marker, _ in jpeg_segments(data))
    return not sequential or 8 * len(data) >= extent.area // 64 * 2
