"""Owns the checks that every slide reader must pass; readers' tests inherit them."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import RegionError
from wsi_seg.geometry import Region
from wsi_seg.slides import Slide, open_slide


def check_slide(path: Path, levels: list[NDArray[np.uint8]]) -> None:
    """Raise AssertionError unless the reader keeps every promise of `Slide` on this file.

    Parameters
    ----------
    path
        The file.
    levels
        True px of each level, ``(H, W, 3)``, finest first.
    """
    with open_slide(path) as slide:
        _check_levels(slide, levels)
        _check_windows(slide, levels[0])
        _check_windows(pickle.loads(pickle.dumps(slide)), levels[0])
        _check_refusals(slide)


def _check_levels(slide: Slide, levels: list[NDArray[np.uint8]]) -> None:
    sizes = [(extent.height, extent.width) for extent in slide.pyramid.extents]
    assert sizes == [level.shape[:2] for level in levels], sizes
    for number, expected in enumerate(levels):
        height, width = sizes[number]
        found = slide.read(Region(level=number, y=0, x=0, height=height, width=width))
        assert found.dtype == np.uint8, found.dtype
        assert np.array_equal(found, expected), f"level {number} differs"


def _check_windows(slide: Slide, expected: NDArray[np.uint8]) -> None:
    height, width = expected.shape[:2]
    regions = [
        Region(level=0, y=y, x=x, height=min(33, height - y), width=min(21, width - x))
        for y in range(0, height, 29)
        for x in range(0, width, 53)
    ]
    with ThreadPoolExecutor(4) as pool:
        for region, found in zip(regions, pool.map(slide.read, regions), strict=True):
            assert np.array_equal(found, expected[region.slices]), f"{region} differs"


def _check_refusals(slide: Slide) -> None:
    extent = slide.pyramid.extent
    outside = (
        Region(level=0, y=-1, x=0, height=1, width=1),
        Region(level=0, y=0, x=extent.width, height=1, width=1),
        Region(level=len(slide.pyramid.extents), y=0, x=0, height=1, width=1),
    )
    for region in outside:
        try:
            slide.read(region)
        except RegionError:
            continue
        raise AssertionError(f"{region} was read, though it lies outside")
