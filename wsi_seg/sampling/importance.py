"""Owns the importance map: a slide cut into cells, each with its share of tissue, and its objects.

A map is small (a cell is about 32 um wide) and is made from the tissue mask's pyramid in bands of
rows, so making it costs neither time nor memory that grows with the slide's pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.boxes import box_sums
from wsi_seg.store import Multiscale

HARD_NEGATIVES = "hard_negatives"

# Shares of a cell are kept in steps of 1/255.
Share = NDArray[np.uint8]
_FULL = 255

BLOCK = 64
_DRAWS_AT_ONCE = 8192

_BAND_PX = 2048


@dataclass(frozen=True, slots=True, eq=False)
class SlideMap:
    """Where patches of one slide may come from.

    Parameters
    ----------
    name
        Of the slide.
    extent
        Of level 0.
    px_area
        Area of a level-0 pixel in the unit that all maps of a run share (um2, or pixels).
    cell_px
        Side of a cell in level-0 pixels; cells of the last row and column may be cut by the border.
    tissue
        Share of each cell that is tissue, ``(rows, columns)`` uint8, 255 = all of it.
    boxes
        Bounding boxes of the objects, ``(n, 4)`` float64: y, x, y_end, x_end in level-0 pixels.
    class_ids
        Class of each object, ``(n,)`` uint8.
    areas
        Area of each object in level-0 px², ``(n,)`` float64.
    sources
        Who drew each object, ``(n,)`` text.
    covered
        Share of each cell that objects cover, as ``tissue``; None where nothing asks for it.
    hard_negatives
        How wrong the last model was in each cell, as ``tissue``; None before it was mined.
    regions
        Share of each cell that a region covers, as ``tissue``, by the region's class.
    lesions
        Of which lesion each object is a slice, ``(n,)`` text, empty where of none; None where no
        object is.
    diameters_mm
        Of the lesion of each object, ``(n,)`` float64, NaN where there is none; None as above.
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
        """Share of each cell's full size: less than ``share`` where the border cuts the cell."""
        rows, columns = share.shape
        inside = share.copy()
        for edge, cells, length in (
            (inside[-1], rows, self.extent.height),
            (inside[:, -1], columns, self.extent.width),
        ):
            part = min(1.0, (length - (cells - 1) * self.cell_px) / self.cell_px)
            edge[:] = np.maximum(np.rint(edge * part), edge > 0)  # what is there stays
        return inside

    @property
    def boundary(self) -> Share:
        """255 in cells that objects cover in part, 0 elsewhere."""
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
    """Cut a mask of a slide into cells.

    Parameters
    ----------
    mask
        Label of the slide; without one the whole slide counts.
    extent
        Of the slide's level 0.
    cell_px
        Side of a cell in level-0 pixels.
    value
        Only pixels of this value count; None counts all that are not 0.
    mean
        Take the mean of the values instead of counting pixels.

    Returns
    -------
    NDArray[np.uint8]
        ``(rows, columns)``: share of each cell in 1/255, or the mean.
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
    """Count the cells along a side of a slide, in level-0 pixels."""
    return max(1, int(np.ceil(length / cell_px)))


def _cell_means(
    tissue: Multiscale,
    extent: Extent,
    cell_px: float,
    *,
    shape: tuple[int, int],
    weigh: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
) -> Share:
    """Mean of each cell's weighed pixels, from the coarsest level with at least 2 px per cell."""
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
    """First pixel of each cell and first one after it, ``(cells, 2)``, at least 1 px each."""
    edges = np.rint(np.arange(cells + 1) * step).astype(np.int64)
    start = np.minimum(edges[:-1], length - 1)
    end = np.clip(edges[1:], start + 1, length)
    return np.stack([start, end], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """Cells of all slides that a layer has, for draws in O(log n), one byte for each cell.

    Cells are in blocks of 64; a draw finds its block by the blocks' running sum, then its cell
    among 64. Cells are counted through the maps one after the other, each map from a new block.

    Parameters
    ----------
    weights
        ``(blocks, 64)`` uint8.
    cumulative
        Running sum of the blocks' weights times their factors, ``(blocks,)`` float64.
    factors
        Of each block: the factor of its weights, ``(blocks,)`` float32.
    """

    weights: NDArray[np.uint8]
    cumulative: NDArray[np.float64]
    factors: NDArray[np.float32]

    @classmethod
    def of(cls, layers: Sequence[tuple[Share, float]]) -> "CellTable":
        """Table of one layer: for each map the weights of its cells and their factor."""
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
        """Weight of all cells."""
        return float(self.cumulative[-1])

    def draw(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cells drawn by numbers in [0, 1), each with probability weight / total weight.

        Returns
        -------
        NDArray[np.int64]
            ``block * 64 + place``.
        """
        drawn = np.empty(len(uniform), dtype=np.int64)
        for first in range(0, len(uniform), _DRAWS_AT_ONCE):
            part = uniform[first : first + _DRAWS_AT_ONCE] * self.total
            block = np.searchsorted(self.cumulative, part, side="right")
            # Rounding may lead past the last block that has weight.
            block = np.minimum(block, np.searchsorted(self.cumulative, self.total, side="left"))
            before = np.where(block > 0, self.cumulative[block - 1], 0.0)
            rest = (part - before) / self.factors[block]
            sums = np.cumsum(self.weights[block], axis=1, dtype=np.int32)
            rest = np.clip(rest, 0, np.nextafter(sums[:, -1].astype(np.float64), 0))
            place = (sums <= rest[:, None]).sum(axis=1)
            drawn[first : first + _DRAWS_AT_ONCE] = block * BLOCK + place
        return drawn

    def share(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of cells, given as `draw` gives them."""
        block, place = np.divmod(cells, BLOCK)
        weights = self.weights[block, place].astype(np.float64)
        found: NDArray[np.float64] = weights * self.factors[block] / self.total
        return found
