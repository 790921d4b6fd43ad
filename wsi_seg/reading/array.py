"""Owns arrays that are read like the image of a slide."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.reading.readable import destination


@dataclass(frozen=True, slots=True, eq=False)
class ArrayImage:
    """Pixels in memory, read like those of a slide.

    Parameters
    ----------
    levels
        ``(H, W, C)`` uint8 of each level, or ``(H, W)`` of a label; finest first.
    mpp
        Micrometres per pixel of level 0; None where unknown.
    chunk_px
        Side of what is read at a time; nothing is decoded.
    """

    levels: tuple[NDArray[np.uint8], ...]
    mpp: float | None = None
    chunk_px: int = 512

    @property
    def pyramid(self) -> Pyramid:
        """Sizes of the levels."""
        return Pyramid(tuple(Extent.of(level.shape) for level in self.levels), self.mpp)

    def chunk(self, level: int) -> Extent:
        """Size of what is read at a time, of any level."""
        return Extent(height=self.chunk_px, width=self.chunk_px)

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Copy a region; there is no cache."""
        require_inside(region, self.pyramid.extents[region.level], "the array")
        pixels = self.levels[region.level][region.slices]
        filled = destination(pixels.shape, out)
        filled[...] = pixels
        return filled
