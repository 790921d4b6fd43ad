"""Owns the protocols of images that are read by region, and the output array of a read."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region


class RegionReader(Protocol):
    """Pyramid of pixels that is read by region: a slide file, or a store."""

    @property
    def pyramid(self) -> Pyramid:
        """Extents of the levels, and mpp."""

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Read a region, ``(H, W, C)`` uint8."""


class Readable(RegionReader, Protocol):
    """Chunked pyramid of pixels: a `Multiscale`, or several combined to one image."""

    def chunk(self, level: int) -> Extent:
        """Return the size of a chunk, which is decoded at once."""

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region, ``(H, W, C)`` uint8; see `Multiscale.read`."""


def destination(shape: tuple[int, ...], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return the array that a read fills: ``out`` after checking it, or a new one.

    Parameters
    ----------
    shape
        Required shape.
    out
        Writable uint8 array of this shape, contiguous or not; None for a new array.

    Raises
    ------
    StoreError
        If ``out`` has another shape or dtype, or is read-only.
    """
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.writeable:
        kind = "writable" if out.flags.writeable else "read-only"
        raise StoreError(f"got out {out.shape} {kind} {out.dtype}; expected {shape} writable uint8")
    return out
