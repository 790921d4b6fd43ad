"""Owns local contrast equalisation (CLAHE) that does not depend on the region that is read.

The grid of cells is fixed to the slide's level, not to the region. Each cell has a curve from its
own histogram, and each pixel interpolates the curves of the four cells with the nearest centres.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.intensity import LocalContrastConfig
from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.channels import largest

Pixels = NDArray[np.uint8]

_LEVELS = 256


def region_of_cells(region: Region, extent: Extent, kernel_px: int) -> Region:
    """Return the region, clipped to the level, of all cells on which a region's pixels depend."""
    y, y_end = _cell_span(region.y, region.y_end, extent.height, kernel_px)
    x, x_end = _cell_span(region.x, region.x_end, extent.width, kernel_px)
    return Region(level=region.level, y=y, x=x, height=y_end - y, width=x_end - x)


def _cell_span(start: int, end: int, length: int, kernel_px: int) -> tuple[int, int]:
    first = max(0, (start - kernel_px // 2) // kernel_px) * kernel_px
    last = -(-(end + (kernel_px + 1) // 2) // kernel_px) * kernel_px
    return first, min(last, length)


def equalise(
    pixels: Pixels, wider: Region, region: Region, extent: Extent, config: LocalContrastConfig
) -> Pixels:
    """Equalise the contrast of a region.

    Parameters
    ----------
    pixels
        Pixels of ``wider``, ``(H, W, 3)`` uint8.
    wider, region
        The result of `region_of_cells`, and its argument.
    extent
        Size of the level.
    config
        Size of the cells, and clip limit.

    Returns
    -------
    NDArray[np.uint8]
        Pixels of ``region``, ``(H, W, 3)``. The curves are applied to the largest channel of each
        pixel; the others keep their ratio to it, which preserves hue and saturation.
    """
    kernel = config.kernel_px
    value = largest(pixels)
    curves = _curves(value, kernel, config.clip)
    first_row, first_column = wider.y // kernel, wider.x // kernel
    rows = _neighbours(region.y, region.height, extent.height, kernel)
    columns = _neighbours(region.x, region.width, extent.width, kernel)
    inside = np.s_[
        region.y - wider.y : region.y_end - wider.y, region.x - wider.x : region.x_end - wider.x
    ]
    shown = value[inside]
    new = np.zeros(shown.shape, dtype=np.float32)
    for row, row_share in ((rows[0], 1 - rows[2]), (rows[1], rows[2])):
        for column, share in ((columns[0], 1 - columns[2]), (columns[1], columns[2])):
            found = curves[(row - first_row)[:, None], (column - first_column)[None, :], shown]
            new += found * (row_share[:, None] * share[None, :])
    factor = new / np.maximum(shown, 1)
    changed: Pixels = np.rint((pixels[inside] * factor[..., None]).clip(0, 255)).astype(np.uint8)
    return changed


def _curves(value: Pixels, kernel: int, clip: float) -> NDArray[np.float32]:
    """Return the curve of each cell, ``(rows, columns, 256)`` float32, 0 to 255."""
    height, width = value.shape
    shape = -(-height // kernel), -(-width // kernel)
    row, column = np.arange(height) // kernel, np.arange(width) // kernel
    cell = row[:, None] * shape[1] + column[None, :]
    size = shape[0] * shape[1]
    counts = np.bincount((cell * _LEVELS + value).ravel(), minlength=size * _LEVELS).reshape(
        size, _LEVELS
    )
    total = counts.sum(axis=1, keepdims=True)
    limit = np.maximum(clip * total / _LEVELS, 1)
    kept = np.minimum(counts, limit)
    kept = kept + (total - kept.sum(axis=1, keepdims=True)) / _LEVELS
    curves = np.cumsum(kept, axis=1) / total * (_LEVELS - 1)
    return curves.astype(np.float32).reshape(*shape, _LEVELS)


def _neighbours(
    start: int, count: int, length: int, kernel: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the cells before and after each pixel along an axis, and the weight of the latter."""
    position = (np.arange(start, start + count) + 0.5) / kernel - 0.5
    before = np.floor(position).astype(np.int64)
    share = (position - before).astype(np.float32)
    last = (length - 1) // kernel
    return before.clip(0, last), (before + 1).clip(0, last), share
