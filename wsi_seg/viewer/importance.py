"""Owns the importance map as a picture: how densely training would draw patches of this slide.

An object counts over its bounding box, tissue and background by area, in the shares of the mix;
see `wsi_seg.sampling`. Densities span orders of magnitude, so their logarithm is shown.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import SamplingConfig
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks import read_objects
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore

# Side of the tissue samples that a cell is averaged from.
_SAMPLES = 4

# The darkest shade stands for this fraction of the largest density.
_RANGE = 1000.0


def importance_reader(
    slide: SlideStore, tissue: Multiscale, truth: str | None
) -> Callable[[Region], NDArray[np.uint8]]:
    """Reader of the map at the levels of the tissue mask; it is made at the first read.

    Parameters
    ----------
    slide
        The slide's store.
    tissue
        Its tissue mask.
    truth
        Label whose objects count, or None for none.
    """
    made: list[NDArray[np.uint8]] = []

    def read(region: Region) -> NDArray[np.uint8]:
        if not made:
            made.append(_shades(importance(slide, tissue, truth)))
        rows, columns = made[0].shape
        extent = tissue.pyramid.extents[region.level]
        y = (np.arange(region.y, region.y_end) * 2 + 1) * rows // (2 * extent.height)
        x = (np.arange(region.x, region.x_end) * 2 + 1) * columns // (2 * extent.width)
        shades: NDArray[np.uint8] = made[0][np.ix_(y, x)]
        return shades

    return read


def importance(slide: SlideStore, tissue: Multiscale, truth: str | None) -> NDArray[np.float64]:
    """Density of draws in each cell, ``(rows, columns)`` float64, summing to 1 at most.

    Cells are those of a recipe's defaults: 32 um, or 64 px where mpp is unknown.
    """
    settings = SamplingConfig()
    full, mpp = slide.pyramid.extent, slide.pyramid.mpp
    cell_px = settings.cell_px if mpp is None else max(1.0, settings.cell_um / mpp)
    shape = (max(1, round(full.height / cell_px)), max(1, round(full.width / cell_px)))
    inside = _tissue_share(tissue, shape)
    density = settings.mix.tissue * _as_share(inside)
    density += settings.mix.background * _as_share(1 - inside)
    if truth is not None:
        density += settings.mix.objects * _as_share(_object_share(slide, truth, shape))
    return density


def _tissue_share(tissue: Multiscale, shape: tuple[int, int]) -> NDArray[np.float64]:
    fine = Extent(height=shape[0] * _SAMPLES, width=shape[1] * _SAMPLES)
    mask = read_label(tissue, fine, 0, 0, height=fine.height, width=fine.width) == 1
    cells = mask.reshape(shape[0], _SAMPLES, shape[1], _SAMPLES)
    share: NDArray[np.float64] = cells.mean(axis=(1, 3))
    return share


def _object_share(slide: SlideStore, truth: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Each object spread evenly over the cells of its box, by a table of differences."""
    full = slide.pyramid.extent
    scale = np.array([shape[0] / full.height, shape[1] / full.width] * 2)
    edges = read_objects(slide, truth).bbox * scale
    last = np.array(shape)
    start = np.clip(np.floor(edges[:, :2]).astype(np.int64), 0, last - 1)
    end = np.clip(np.ceil(edges[:, 2:]).astype(np.int64), start + 1, last)
    weight = 1 / np.prod(end - start, axis=1)
    table = np.zeros((shape[0] + 1, shape[1] + 1))
    (top, left), (bottom, right) = start.T, end.T
    np.add.at(table, (top, left), weight)
    np.add.at(table, (bottom, right), weight)
    np.add.at(table, (top, right), -weight)
    np.add.at(table, (bottom, left), -weight)
    # Sums of differences miss 0 by rounding.
    share: NDArray[np.float64] = table.cumsum(axis=0).cumsum(axis=1)[:-1, :-1].clip(min=0)
    return share


def _as_share(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = values.sum()
    return values / total if total > 0 else values


def _shades(density: NDArray[np.float64]) -> NDArray[np.uint8]:
    largest = density.max()
    if largest <= 0:
        return np.zeros(density.shape, dtype=np.uint8)
    logarithm = 1 + np.log10(np.maximum(density / largest, 1 / _RANGE)) / np.log10(_RANGE)
    shades: NDArray[np.uint8] = np.rint(255 * logarithm).astype(np.uint8)
    return shades
