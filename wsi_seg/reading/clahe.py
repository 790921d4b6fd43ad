"""Owns contrast equalised cell by cell, the same for a pixel whatever region is read.

The cells are fixed to the slide's level, not to the region: each has the curve of its own
histogram, and a pixel is between the curves of the four cells whose middles are around it.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.intensity import LocalContrastConfig
from wsi_seg.geometry import Extent, Region

Pixels = NDArray[np.uint8]

_LEVELS = 256


def region_of_cells(region: Region, extent: Extent, kernel_px: int) -> Region:
    """Region that has all cells whose curves a region's pixels depend on, inside the level."""
    y, y_end = _around(region.y, region.y_end, extent.height, kernel_px)
    x, x_end = _around(region.x, region.x_end, extent.width, kernel_px)
    return Region(level=region.level, y=y, x=x, height=y_end - y, width=x_end - x)


def _around(start: int, end: int, length: int, kernel_px: int) -> tuple[int, int]:
    first = max(0, (start - kernel_px // 2) // kernel_px) * kernel_px
    last = -(-(end + (kernel_px + 1) // 2) // kernel_px) * kernel_px
    return first, min(last, length)


def equalised(
    pixels: Pixels, wider: Region, region: Region, extent: Extent, config: LocalContrastConfig
) -> Pixels:
    """Equalise a region.

    Parameters
    ----------
    pixels
        ``(H, W, 3)`` uint8, of ``wider``.
    wider, region
        See `region_of_cells`.
    extent
        Of the level.
    config
        Size of the cells, and limit.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, 3)`` of ``region``. The largest channel of each pixel follows the curves; the
        others keep their ratio to it, so hue and saturation stay.
    """
    kernel = config.kernel_px
    value = pixels.max(axis=2)
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
    """Make the curve of each cell, ``(rows, columns, 256)``."""
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
    """Cells before and after each pixel of an axis, and the share of the latter."""
    place = (np.arange(start, start + count) + 0.5) / kernel - 0.5
    before = np.floor(place).astype(np.int64)
    share = (place - before).astype(np.float32)
    last = (length - 1) // kernel
    return before.clip(0, last), (before + 1).clip(0, last), share
