"""Owns the importance map of a slide: a grid of cells with their tissue fraction, and the objects.

A map is small (a cell is about 32 um wide) and is computed from the tissue mask's pyramid in bands
of rows, so time and memory do not grow with the pixels of the slide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.boxes import box_sums
from wsi_seg.store import Multiscale

HARD_NEGATIVES = "hard_negatives"

# Fraction of each cell in steps of 1/255, ``(rows, columns)`` uint8.
Share = NDArray[np.uint8]
_FULL = 255

BLOCK = 64
_DRAWS_AT_ONCE = 8192

_BAND_PX = 2048


@dataclass(frozen=True, slots=True, eq=False)
class SlideMap:
    """Importance map of one slide, from which patch positions are drawn.

    Parameters
    ----------
    name
        Name of the slide.
    extent
        Extent of level 0.
    px_area
        Area of a level-0 pixel in the unit that all maps of a run share (um2, or pixels).
    cell_px
        Side of a cell in level-0 pixels; the border may cut the cells of the last row and column.
    tissue
        Fraction of each cell that is tissue, ``(rows, columns)`` uint8, 255 = the whole cell.
    boxes
        Bounding boxes of the objects, ``(n, 4)`` float64: y, x, y_end, x_end in level-0 pixels.
    class_ids
        Class of each object, ``(n,)`` uint8.
    areas
        Area of each object in level-0 px², ``(n,)`` float64.
    sources
        Annotation source of each object, ``(n,)`` text.
    covered
        Fraction of each cell that objects cover, like ``tissue``; None if not needed.
    hard_negatives
        Mean error of a previous model in each cell, like ``tissue``; None if not mined yet.
    regions
        Fraction of each cell that a region covers, like ``tissue``, by the region's class.
    lesions
        Lesion of which each object is a slice, ``(n,)`` text, empty if it has none; None if no
        object has one.
    diameters_mm
        Diameter of each object's lesion, ``(n,)`` float64, NaN if it has none; None if no object
        has one.
    """

    name: str
    extent: Extent
    px_area: float
    cell_px: float
    tissue: Share
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.uint8]
    areas: NDArray[np.float64]
    sources: NDArray[np.str_]
    covered: Share | None = None
    hard_negatives: Share | None = None
    regions: Mapping[str, Share] = field(default_factory=dict)
    lesions: NDArray[np.str_] | None = None
    diameters_mm: NDArray[np.float64] | None = None

    def within(self, share: Share) -> Share:
        """Scale ``share`` by the fraction of each cell that is inside the slide."""
        rows, columns = share.shape
        inside = share.copy()
        for edge, cells, length in (
            (inside[-1], rows, self.extent.height),
            (inside[:, -1], columns, self.extent.width),
        ):
            part = min(1.0, (length - (cells - 1) * self.cell_px) / self.cell_px)
            edge[:] = np.maximum(np.rint(edge * part), edge > 0)  # never rounded down to 0
        return inside

    @property
    def boundary(self) -> Share:
        """Cells that objects cover partly: 255, and 0 elsewhere, like ``tissue``."""
        if self.covered is None:
            return np.zeros_like(self.tissue)
        return np.where((self.covered > 0) & (self.covered < _FULL), _FULL, 0).astype(np.uint8)


def map_cells(
    mask: Multiscale | None,
    extent: Extent,
    cell_px: float,
    *,
    value: int | None = None,
    mean: bool = False,
) -> Share:
    """Reduce a mask of a slide to cells.

    Parameters
    ----------
    mask
        Label of the slide; None stands for a mask of the whole slide.
    extent
        Extent of level 0.
    cell_px
        Side of a cell in level-0 pixels.
    value
        Count pixels of this value; None counts all pixels that are not 0.
    mean
        Average the values instead of counting pixels.

    Returns
    -------
    NDArray[np.uint8]
        ``(rows, columns)``: fraction of each cell in 1/255, or the mean value.
    """
    shape = (cells_along(extent.height, cell_px), cells_along(extent.width, cell_px))
    if mask is None:
        return np.full(shape, _FULL, dtype=np.uint8)

    def weigh(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        if mean:
            return pixels / np.float64(_FULL)
        return ((pixels > 0) if value is None else (pixels == value)).astype(np.float64)

    return _cell_means(mask, extent, cell_px, shape=shape, weigh=weigh)


def cells_along(length: int, cell_px: float) -> int:
    """Return the number of cells along a side of ``length`` level-0 pixels."""
    return max(1, int(np.ceil(length / cell_px)))


def _cell_means(
    tissue: Multiscale,
    extent: Extent,
    cell_px: float,
    *,
    shape: tuple[int, int],
    weigh: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
) -> Share:
    """Average ``weigh(pixels)`` per cell, on the coarsest level with at least 2 px per cell."""
    scale = extent.height / tissue.pyramid.extent.height
    level = tissue.pyramid.level_at_or_below(max(1.0, cell_px / scale / 2))
    size = tissue.pyramid.extents[level]
    ys = _borders(shape[0], cell_px * size.height / extent.height, size.height)
    xs = _borders(shape[1], cell_px * size.width / extent.width, size.width)
    share = np.empty(shape, dtype=np.uint8)
    rows_per_band = max(1, int(_BAND_PX * shape[0] / size.height))
    for first in range(0, shape[0], rows_per_band):
        last = min(first + rows_per_band, shape[0])
        y, y_end = int(ys[first, 0]), int(ys[last - 1, 1])
        region = Region(level=level, y=y, x=0, height=y_end - y, width=size.width)
        top, bottom = (ys[first:last] - y).T
        left, right = xs.T
        inside = box_sums(weigh(tissue.read(region)), (top, bottom), (left, right))
        areas = np.outer(bottom - top, right - left)
        share[first:last] = np.rint(inside * (_FULL / areas))
    return share


def _borders(cells: int, step: float, length: int) -> NDArray[np.int64]:
    """Return start and end pixel of each cell, ``(cells, 2)``, at least 1 px apart."""
    edges = np.rint(np.arange(cells + 1) * step).astype(np.int64)
    start = np.minimum(edges[:-1], length - 1)
    end = np.clip(edges[1:], start + 1, length)
    return np.stack([start, end], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """Weighted cells of one layer over all slides, for draws in O(log n) with one byte per cell.

    Cells are in blocks of 64; a draw finds its block by binary search, then its cell within the
    block. Cells are numbered through all maps, each map starting at a new block.

    Parameters
    ----------
    weights
        Weights of the cells, ``(blocks, 64)`` uint8.
    cumulative
        Cumulative sum of the blocks' weights times their factors, ``(blocks,)`` float64.
    factors
        Factor of each block's weights, ``(blocks,)`` float32.
    """

    weights: NDArray[np.uint8]
    cumulative: NDArray[np.float64]
    factors: NDArray[np.float32]

    @classmethod
    def of(cls, layers: Sequence[tuple[Share, float]]) -> "CellTable":
        """Build the table of one layer from the weights of each map's cells and their factor."""
        blocks, factors = [], []
        for weights, factor in layers:
            flat = np.zeros((-(-weights.size // BLOCK), BLOCK), dtype=np.uint8)
            flat.ravel()[: weights.size] = weights.ravel()
            blocks.append(flat)
            factors.append(np.full(len(flat), factor, dtype=np.float32))
        table, factors_of_blocks = np.concatenate(blocks), np.concatenate(factors)
        sums = table.sum(axis=1, dtype=np.float64) * factors_of_blocks
        return cls(table, np.cumsum(sums), factors_of_blocks)

    @property
    def total(self) -> float:
        """Sum of all weights times their factors."""
        return float(self.cumulative[-1])

    def draw(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Draw cells with probability proportional to their weight.

        Parameters
        ----------
        uniform
            Uniform numbers in [0, 1), ``(n,)`` float64.

        Returns
        -------
        NDArray[np.int64]
            Index of each cell, ``block * 64 + place``, ``(n,)``.
        """
        drawn = np.empty(len(uniform), dtype=np.int64)
        for first in range(0, len(uniform), _DRAWS_AT_ONCE):
            part = uniform[first : first + _DRAWS_AT_ONCE] * self.total
            block = np.searchsorted(self.cumulative, part, side="right")
            # Rounding errors can lead past the last block with weight.
            block = np.minimum(block, np.searchsorted(self.cumulative, self.total, side="left"))
            before = np.where(block > 0, self.cumulative[block - 1], 0.0)
            rest = (part - before) / self.factors[block]
            sums = np.cumsum(self.weights[block], axis=1, dtype=np.int32)
            rest = np.clip(rest, 0, np.nextafter(sums[:, -1].astype(np.float64), 0))
            place = (sums <= rest[:, None]).sum(axis=1)
            drawn[first : first + _DRAWS_AT_ONCE] = block * BLOCK + place
        return drawn

    def share(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of cells by their index from `draw`, ``(n,)`` float64."""
        block, place = np.divmod(cells, BLOCK)
        weights = self.weights[block, place].astype(np.float64)
        found: NDArray[np.float64] = weights * self.factors[block] / self.total
        return found
