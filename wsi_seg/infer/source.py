"""Owns what a window looks like: reading it, area-resampling it, mirroring it past the border."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.infer.plan import SlidePlan
from wsi_seg.store import Multiscale

# Area weights are multiples of 1 / 4096 and rows are kept to 1 / 16 of a grey step in between:
# then every product and sum below 2^24 is exact in float32, and a px has the same value in
# every window that contains it, whatever the order of summation.
_WEIGHT_STEPS = 4096
_ROW_STEPS = 16


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

    image: Multiscale
    plan: SlidePlan

    def read(self, row: int, column: int) -> NDArray[np.uint8]:
        """Window ``(row, column)`` of the plan's grid, ``(tile_px, tile_px, 3)`` uint8 RGB.

        Parts past the slide's border are mirrored.
        """
        plan = self.plan
        y, x = plan.ys[row], plan.xs[column]
        height = min(plan.tile_px, plan.extent.height - y)
        width = min(plan.tile_px, plan.extent.width - x)
        pixels = self._read_scaled(y, x, height, width)
        below, right = plan.tile_px - height, plan.tile_px - width
        if below or right:
            pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="reflect")
        return pixels

    def _read_scaled(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        plan = self.plan
        full = self.image.pyramid.extents[plan.level]
        if full == plan.extent:
            return self.image.read(Region(level=plan.level, y=y, x=x, height=height, width=width))
        rows, y0 = area_weights(y, height, full=full.height, small=plan.extent.height)
        columns, x0 = area_weights(x, width, full=full.width, small=plan.extent.width)
        region = Region(
            level=plan.level, y=y0, x=x0, height=rows.shape[1], width=columns.shape[1]
        ).clip(Extent(full.height, full.width))
        source = self.image.read(region).astype(np.float32)
        tall = np.tensordot(rows[:, : region.height], source, axes=(1, 0))
        tall = np.rint(tall * (_ROW_STEPS / _WEIGHT_STEPS))
        wide = np.tensordot(columns[:, : region.width], tall, axes=(1, 1)).swapaxes(0, 1)
        scaled: NDArray[np.uint8] = np.rint(wide / (_WEIGHT_STEPS * _ROW_STEPS)).astype(np.uint8)
        return scaled


def area_weights(
    start: int, count: int, *, full: int, small: int
) -> tuple[NDArray[np.float32], int]:
    """Weights that average source px into output px along one axis.

    Output px ``i`` covers the source interval ``[i, i + 1) * full / small``; each source px counts
    by the length it shares with that interval.

    Parameters
    ----------
    start, count
        Output px ``[start, start + count)``.
    full, small
        Length of the source axis and of the output axis, in their own px.

    Returns
    -------
    weights : NDArray[np.float32]
        Shape ``(count, n)``, whole numbers of 1/4096; each row sums to 4096.
    first : int
        Source px of column 0.
    """
    ratio = full / small
    edges = np.arange(start, start + count + 1) * ratio
    first = int(edges[0])
    last = min(full, max(first + 1, int(np.ceil(edges[-1]))))
    px = np.arange(first, last + 1, dtype=np.float64)
    # Share of each output px that lies before each source border: differences are the weights.
    before = np.clip((px[None, :] - edges[:-1, None]) / ratio, 0, 1)
    before[:, -1] = 1
    return np.diff(np.rint(before * _WEIGHT_STEPS), axis=1).astype(np.float32), first
