"""Owns in-memory arrays with the reading interface of a slide's image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.reading.readable import destination


@dataclass(frozen=True, slots=True, eq=False)
class ArrayImage:
    """A pyramid of arrays in memory, read like the image of a slide.

    Parameters
    ----------
    levels
        One array per level, finest first: ``(H, W, C)`` uint8, or ``(H, W)`` for a label.
    mpp
        Micrometres per pixel of level 0; None if unknown.
    chunk_px
        Side of a chunk in pixels, for callers that read chunk by chunk.
    """

    levels: tuple[NDArray[np.uint8], ...]
    mpp: float | None = None
    chunk_px: int = 512

    @property
    def pyramid(self) -> Pyramid:
        """Extents of the levels, and mpp."""
        return Pyramid(tuple(Extent.of(level.shape) for level in self.levels), self.mpp)

    def chunk(self, level: int) -> Extent:
        """Return the size of a chunk, the same for all levels."""
        return Extent(height=self.chunk_px, width=self.chunk_px)

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Copy a region, ``(H, W, C)`` or ``(H, W)`` uint8; there is no cache."""
        require_inside(region, self.pyramid.extents[region.level], "the array")
        pixels = self.levels[region.level][region.slices]
        filled = destination(pixels.shape, out)
        filled[...] = pixels
        return filled
