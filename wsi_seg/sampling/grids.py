"""Owns grid sampling: every patch of a grid that touches tissue, once an epoch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.sampling import GridConfig
from wsi_seg.errors import ConfigError
from wsi_seg.sampling.counters import Stream, generator, uniforms
from wsi_seg.sampling.importance import SlideMap
from wsi_seg.sampling.samplers import NO_OBJECT, Draws, Layer


class GridSampler:
    """Draws each patch of a grid over the tissue once an epoch, in a fresh order.

    The same `Draws` as of `PatchSampler`, from the same kind of counters.

    Parameters
    ----------
    maps
        One per slide.
    grid
        Overlap of neighbours, and whether the grid moves from epoch to epoch.
    sides
        Side of a patch in level-0 px of each slide.
    seed
        Of the run.
    batch
        The number of patches is rounded up to whole batches of this many, with the first ones.

    Raises
    ------
    ConfigError
        If no patch of the grid touches tissue.
    """

    def __init__(
        self,
        maps: Sequence[SlideMap],
        grid: GridConfig,
        *,
        sides: Sequence[float],
        seed: int,
        batch: int = 1,
    ) -> None:
        self.maps = tuple(maps)
        self._seed, self._shifted = seed, grid.shifted
        self._strides = np.array(sides) * (1 - grid.overlap)
        centres = [
            _centres(slide, side, stride)
            for slide, side, stride in zip(maps, sides, self._strides, strict=True)
        ]
        self._slide = np.repeat(np.arange(len(maps), dtype=np.int32), [len(c) for c in centres])
        self._centres = np.concatenate(centres) if centres else np.empty((0, 2))
        if not len(self._slide):
            raise ConfigError(
                f"no patch of the grid touches tissue on the {len(maps)} training slides"
            )
        self.length = -(-len(self._slide) // batch) * batch

    def __len__(self) -> int:
        return self.length

    def epoch(self, epoch: int) -> Draws:
        """All draws of one epoch, in the order in which they are shown."""
        order = generator(self._seed, epoch, stream=Stream.LAYERS).permutation(len(self._slide))
        picked = np.resize(order, self.length)
        slide = self._slide[picked]
        centres = self._centres[picked]
        if self._shifted:
            count = len(self.maps)
            offset = uniforms(self._seed, epoch, stream=Stream.PLACES, first=0, count=count)
            shift = (offset[:, :2] - 0.5) * self._strides[:, None]
            ends = np.array([[m.extent.height, m.extent.width] for m in self.maps]) - 1e-6
            centres = np.clip(centres + shift[slide], 0, ends[slide])
        return Draws(
            slide=slide,
            y=centres[:, 0].copy(),
            x=centres[:, 1].copy(),
            layer=np.full(self.length, Layer.TISSUE, dtype=np.uint8),
            object_id=np.full(self.length, NO_OBJECT, dtype=np.int64),
            weight=np.ones(self.length, dtype=np.float32),
        )


def _centres(slide: SlideMap, side: float, stride: float) -> NDArray[np.float64]:
    """Centres ``(n, 2)``, y and x, of the patches that touch a cell with tissue."""
    ys, xs = (_along(length, side, stride) for length in (slide.extent.height, slide.extent.width))
    found = slide.tissue > 0
    sums = np.zeros((found.shape[0] + 1, found.shape[1] + 1), dtype=np.int64)
    sums[1:, 1:] = found.cumsum(axis=0).cumsum(axis=1)
    top, bottom = _cells(ys, side, slide.cell_px, found.shape[0])
    left, right = _cells(xs, side, slide.cell_px, found.shape[1])
    inside = (
        sums[np.ix_(bottom, right)]
        - sums[np.ix_(top, right)]
        - sums[np.ix_(bottom, left)]
        + sums[np.ix_(top, left)]
    )
    row, column = np.nonzero(inside)
    return np.stack([ys[row], xs[column]], axis=1)


def _along(length: int, side: float, stride: float) -> NDArray[np.float64]:
    """Centres along an axis; the last patch ends at the border or covers it."""
    count = max(1, int(np.ceil((length - side) / stride)) + 1)
    starts = np.minimum(np.arange(count) * stride, max(0.0, length - side))
    centres: NDArray[np.float64] = starts + side / 2
    return np.minimum(centres, length / 2) if length < side else centres


def _cells(
    centres: NDArray[np.float64], side: float, cell_px: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First cell under each patch, and first cell after it."""
    first = np.clip(np.floor((centres - side / 2) / cell_px), 0, count - 1).astype(np.int64)
    last = np.clip(np.ceil((centres + side / 2) / cell_px), first + 1, count).astype(np.int64)
    return first, last
