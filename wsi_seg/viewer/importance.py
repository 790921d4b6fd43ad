"""Owns the importance map layer: how densely training would sample patches of a slide.

Objects count over their bounding boxes, tissue and background by area, in the proportions of the
mix; see `wsi_seg.sampling`. The map is logarithmic, because densities span orders of magnitude.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import SamplingConfig
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks import read_objects
from wsi_seg.reading.resample import read_label, under_centres
from wsi_seg.store import Multiscale, SlideStore

# Samples along each side of a cell, whose mean is its tissue fraction.
_SAMPLES = 4

# Ratio of the largest density to that of the darkest shade.
_RANGE = 1000.0


def importance_reader(
    slide: SlideStore, tissue: Multiscale, truth: str | None
) -> Callable[[Region], NDArray[np.uint8]]:
    """Make a reader of the map at the levels of the tissue mask, ``(H, W)`` uint8.

    The map is computed at the first read.

    Parameters
    ----------
    slide
        Store of the slide.
    tissue
        Tissue mask of the slide.
    truth
        Label whose objects count; None counts no objects.
    """
    cached: list[NDArray[np.uint8]] = []

    def read(region: Region) -> NDArray[np.uint8]:
        if not cached:
            cached.append(_shades(importance(slide, tissue, truth)))
        rows, columns = cached[0].shape
        extent = tissue.pyramid.extents[region.level]
        y = under_centres(region.y, region.height, full=rows, small=extent.height)
        x = under_centres(region.x, region.width, full=columns, small=extent.width)
        shades: NDArray[np.uint8] = cached[0][np.ix_(y, x)]
        return shades

    return read


def importance(slide: SlideStore, tissue: Multiscale, truth: str | None) -> NDArray[np.float64]:
    """Return the sampling density of each cell, ``(rows, columns)`` float64, summing to 1 at most.

    Cells have the default side of recipes: 32 um, or 64 px if mpp is unknown.
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
    """Spread each object evenly over the cells of its bounding box, by a difference array."""
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
    # Rounding makes sums of differences slightly negative.
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
