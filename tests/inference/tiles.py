"""What a tile looks like by definition; inference cuts the same pixels from a band of rows."""

import numpy as np

from wsi_seg.reading.resample import Scale, read_image


def read_tile(image, plan, row, column):
    """Read one tile by itself, ``(tile_px, tile_px, C)`` uint8, mirrored past the border."""
    y, x = plan.ys[row], plan.xs[column]
    height = min(plan.tile_px, plan.extent.height - y)
    width = min(plan.tile_px, plan.extent.width - x)
    scale = Scale(plan.level, plan.extent)
    pixels = read_image(image, scale, y, x, height=height, width=width)
    past = ((0, plan.tile_px - height), (0, plan.tile_px - width), (0, 0))
    return np.pad(pixels, past, mode="reflect")
