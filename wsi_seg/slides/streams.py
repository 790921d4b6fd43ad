"""Owns the bytes of tiles: read and pasted by position; what a JPEG stream says of itself."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region

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


def jpeg_extent(data: bytes) -> Extent | None:
    """Size that a JPEG stream states in its frame header; None if it has none."""
    for marker, body in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and len(body) >= 5:
            height, width = struct.unpack(">HH", body[1:5])
            return Extent(height, width) if height and width else None
    return None


def jpeg_colours_unmarked(data: bytes) -> bool:
    """Whether a JPEG stream leaves open if its three components are YCbCr or RGB."""
    return not any(marker in {_JFIF, _ADOBE} for marker, _ in _segments(data))


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG stream has its end; decoders fill what is missing without a word."""
    scan = data.find(b"\xff\xda", sum(2 + 2 + len(body) for _, body in _segments(data)))
    return scan >= 0 and data.find(b"\xff\xd9", scan) >= 0


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the scan."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield data[place + 1], data[place + 4 : place + 2 + length]
        place += 2 + length
