"""Owns grid sampling: every patch of a grid that touches tissue, once per epoch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.sampling import GridConfig
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.reading.boxes import box_sums
from wsi_seg.sampling.counters import Stream, generator, uniforms
from wsi_seg.sampling.importance import SlideMap
from wsi_seg.sampling.positions import centre_small_slides, lengths_of
from wsi_seg.sampling.samplers import NO_OBJECT, Draws, Layer


class GridSampler:
    """Draws each patch of a grid over the tissue once per epoch, in a new random order.

    It has the same interface as `PatchSampler`, and its draws are reproducible in the same way.

    Parameters
    ----------
    maps
        One per slide.
    grid
        Overlap of neighbouring patches, and whether each epoch shifts the grid.
    sides
        Height and width of a patch in level-0 pixels of each slide, ``(maps, 2)`` float64.
    seed
        Seed of the run.
    batch
        The number of patches is rounded up to whole batches of this size, by repeating the first.

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
        sides: NDArray[np.float64],
        seed: int,
        batch: int = 1,
    ) -> None:
        self.maps = tuple(maps)
        self._seed, self._shifted = seed, grid.shifted
        self._sides, self._lengths = sides, lengths_of(maps)
        self._strides = sides * (1 - grid.overlap)
        if grid.shifted:
            # Strides that divide the slide evenly: shifts then reach all positions equally often.
            self._strides = self._lengths / np.ceil(self._lengths / self._strides)
        centres = [
            _centres(slide, side, stride, moved=grid.shifted)
            for slide, side, stride in zip(maps, sides, self._strides, strict=True)
        ]
        self._slide = np.repeat(np.arange(len(maps), dtype=np.int32), [len(c) for c in centres])
        self._centres = np.concatenate(centres) if centres else np.empty((0, 2))
        if not len(self._slide):
            raise ConfigError(
                f"no patch of the grid touches tissue on {counted(len(maps), 'training slide')}"
            )
        self.length = -(-len(self._slide) // batch) * batch

    def __len__(self) -> int:
        return self.length

    def epoch(self, epoch: int) -> Draws:
        """Return all draws of one epoch, in training order."""
        order = generator(self._seed, epoch, stream=Stream.LAYERS).permutation(len(self._slide))
        picked = np.resize(order, self.length)
        slide = self._slide[picked]
        centres = self._centres[picked]
        if self._shifted:
            count = len(self.maps)
            offset = uniforms(self._seed, epoch, stream=Stream.POSITIONS, first=0, count=count)
            shift = (offset[:, :2] - 0.5) * self._strides
            moved = np.clip(centres + shift[slide], 0, self._lengths[slide] - 1e-6)
            centres = centre_small_slides(moved, self._lengths[slide], self._sides[slide])
        return Draws(
            slide=slide,
            y=centres[:, 0].copy(),
            x=centres[:, 1].copy(),
            layer=np.full(self.length, Layer.TISSUE, dtype=np.uint8),
            object_id=np.full(self.length, NO_OBJECT, dtype=np.int64),
            weight=np.ones(self.length, dtype=np.float32),
        )


def _centres(
    slide: SlideMap, side: NDArray[np.float64], stride: NDArray[np.float64], *, moved: bool
) -> NDArray[np.float64]:
    """Return the centres ``(n, 2)``, y and x, of the patches that touch a cell with tissue.

    If the grid is shifted, by up to half a stride, patches that touch tissue at any offset count.
    Otherwise patches at the edge of the tissue would show it in their middle too often.
    """
    lengths = slide.extent.height, slide.extent.width
    along = _step_centres if moved else _patch_centres
    ys, xs = (along(*each) for each in zip(lengths, side, stride, strict=True))
    reach = side + stride if moved else side
    found = slide.tissue > 0
    rows = _cells(ys, reach[0], slide.cell_px, found.shape[0])
    columns = _cells(xs, reach[1], slide.cell_px, found.shape[1])
    row, column = np.nonzero(box_sums(found, rows, columns))
    return np.stack([ys[row], xs[column]], axis=1)


def _patch_centres(length: int, side: float, stride: float) -> NDArray[np.float64]:
    """Return the centres along an axis; the last patch ends at the border or covers it."""
    count = max(1, int(np.ceil((length - side) / stride)) + 1)
    starts = np.minimum(np.arange(count) * stride, max(0.0, length - side))
    centres: NDArray[np.float64] = starts + side / 2
    return np.minimum(centres, length / 2) if length < side else centres


def _step_centres(length: int, _: float, stride: float) -> NDArray[np.float64]:
    """Return the centres of the steps along an axis that the stride divides evenly."""
    middles: NDArray[np.float64] = np.arange(0.5, round(length / stride)) * np.float64(stride)
    return middles


def _cells(
    centres: NDArray[np.float64], side: float, cell_px: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first cell that each patch covers, and the first cell after it."""
    first = np.clip(np.floor((centres - side / 2) / cell_px), 0, count - 1).astype(np.int64)
    last = np.clip(np.ceil((centres + side / 2) / cell_px), first + 1, count).astype(np.int64)
    return first, last
