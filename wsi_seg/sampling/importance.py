"""Owns the importance map: a slide cut into cells, each with its share of tissue, and its objects.

A map is small (a cell is about 32 um wide) and is made from the tissue mask's pyramid in bands of
rows, so making it costs neither time nor memory that grows with the slide's px.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.store import Multiscale

TISSUE = "tissue"

# Share of tissue in a cell is kept in steps of 1/255.
_FULL = 255

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
        Area of a level-0 px in the unit that all maps of a run share (um2, or px).
    cell_px
        Side of a cell in level-0 px; cells of the last row and column may be cut by the border.
    tissue
        Share of each cell that is tissue, ``(rows, columns)`` uint8, 255 = all of it.
    boxes
        Bounding boxes of the objects, ``(n, 4)`` float64: y, x, y_end, x_end in level-0 px.
    class_ids
        Class of each object, ``(n,)`` uint8.
    """

    name: str
    extent: Extent
    px_area: float
    cell_px: float
    tissue: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.uint8]

    @property
    def cell_areas(self) -> NDArray[np.float64]:
        """Area of each cell inside the slide, ``(rows, columns)`` float64."""
        rows, columns = self.tissue.shape
        heights = np.diff(np.minimum(np.arange(rows + 1) * self.cell_px, self.extent.height))
        widths = np.diff(np.minimum(np.arange(columns + 1) * self.cell_px, self.extent.width))
        areas: NDArray[np.float64] = np.outer(heights, widths) * self.px_area
        return areas


def map_slide(
    name: str,
    extent: Extent,
    tissue: Multiscale | None,
    *,
    cell_px: float,
    px_area: float,
    boxes: NDArray[np.float64],
    class_ids: NDArray[np.uint8],
) -> SlideMap:
    """Cut a slide into cells.

    Parameters
    ----------
    tissue
        Tissue mask; without one the whole slide counts as tissue.

    Other parameters are those of `SlideMap`.
    """
    rows, columns = _cells_along(extent.height, cell_px), _cells_along(extent.width, cell_px)
    if tissue is None:
        share = np.full((rows, columns), _FULL, dtype=np.uint8)
    else:
        share = _tissue_share(tissue, extent, cell_px, shape=(rows, columns))
    return SlideMap(name, extent, px_area, cell_px, share, boxes, class_ids)


def _cells_along(length: int, cell_px: float) -> int:
    return max(1, int(np.ceil(length / cell_px)))


def _tissue_share(
    tissue: Multiscale, extent: Extent, cell_px: float, *, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Mean of the mask over each cell, from the coarsest level with at least 2 px per cell."""
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
        sums = np.zeros((region.height + 1, region.width + 1), dtype=np.int64)
        np.cumsum(tissue.read(region) > 0, axis=0, dtype=np.int64, out=sums[1:, 1:])
        np.cumsum(sums, axis=1, out=sums)
        top, bottom = (ys[first:last] - y).T
        left, right = xs.T
        inside = (
            sums[np.ix_(bottom, right)]
            - sums[np.ix_(top, right)]
            - sums[np.ix_(bottom, left)]
            + sums[np.ix_(top, left)]
        )
        areas = np.outer(bottom - top, right - left)
        share[first:last] = np.rint(inside * (_FULL / areas))
    return share


def _borders(cells: int, step: float, length: int) -> NDArray[np.int64]:
    """First px and first px after each cell along an axis, ``(cells, 2)``, at least 1 px each."""
    edges = np.rint(np.arange(cells + 1) * step).astype(np.int64)
    start = np.minimum(edges[:-1], length - 1)
    end = np.clip(edges[1:], start + 1, length)
    return np.stack([start, end], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """Cells of all slides that a layer has, for draws in O(log n).

    Parameters
    ----------
    cells
        Index of each cell, counted through the maps one after the other, ``(n,)`` int32.
    cumulative
        Running sum of the cells' weights, ``(n,)`` float64, ascending.
    """

    cells: NDArray[np.int32]
    cumulative: NDArray[np.float64]

    @classmethod
    def of(cls, weights: Sequence[NDArray[np.float64]]) -> "CellTable":
        """Table of one layer's weights, given as one array per map; cells without are left out."""
        flat = np.concatenate([weight.ravel() for weight in weights])
        cells = np.flatnonzero(flat > 0).astype(np.int32)
        return cls(cells, np.cumsum(flat[cells]))

    @property
    def empty(self) -> bool:
        """Whether no cell has any weight."""
        return len(self.cells) == 0

    def draw(self, uniform: NDArray[np.float64]) -> NDArray[np.int32]:
        """Cells drawn by numbers in [0, 1), each with probability weight / total weight."""
        found = np.searchsorted(self.cumulative, uniform * self.cumulative[-1], side="right")
        drawn: NDArray[np.int32] = self.cells[np.minimum(found, len(self.cells) - 1)]
        return drawn
