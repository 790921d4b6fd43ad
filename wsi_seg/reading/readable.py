"""Owns what can be read region by region: the protocol, and the array that a read fills."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region


class Readable(Protocol):
    """Pixels of a slide in levels: a `Multiscale`, or several seen as one."""

    @property
    def pyramid(self) -> Pyramid:
        """Levels."""

    def chunk(self, level: int) -> Extent:
        """Size of what is decoded at a time."""

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region, ``(H, W, C)`` uint8; see `Multiscale.read`."""


def destination(shape: tuple[int, ...], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Array that a read fills: the caller's, or a new one.

    Parameters
    ----------
    shape
        Shape it must have.
    out
        Writable uint8 of this shape, contiguous or not; None for a new array.

    Raises
    ------
    StoreError
        If ``out`` does not fit.
    """
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.writeable:
        kind = "writable" if out.flags.writeable else "read-only"
        raise StoreError(f"got out {out.shape} {kind} {out.dtype}; expected {shape} writable uint8")
    return out
