"""Owns what a window looks like: read at the plan's scale, mirrored past the slide's border."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.data.scaled import Readable, Scale, read_image
from wsi_seg.infer.plan import SlidePlan


@dataclass(frozen=True, slots=True, eq=False)
class WindowReader:
    """Reads windows of one planned slide.

    Parameters
    ----------
    image
        The slide's pixels.
    plan
        Names the level and the output grid.
    """

    image: Readable
    plan: SlidePlan

    def read(self, row: int, column: int) -> NDArray[np.uint8]:
        """Window ``(row, column)`` of the plan's grid, ``(tile_px, tile_px, C)`` uint8.

        Parts past the slide's border are mirrored.
        """
        plan = self.plan
        y, x = plan.ys[row], plan.xs[column]
        height = min(plan.tile_px, plan.extent.height - y)
        width = min(plan.tile_px, plan.extent.width - x)
        scale = Scale(plan.level, plan.extent)
        pixels = read_image(self.image, scale, y, x, height=height, width=width)
        below, right = plan.tile_px - height, plan.tile_px - width
        if below or right:
            pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="reflect")
        return pixels
