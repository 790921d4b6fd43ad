"""Owns the conformance checks that every slide reader must pass."""

import math
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import RegionError
from wsi_seg.geometry import Region
from wsi_seg.slides import NotCopyable, Opener, Slide, open_slide, slide_name

Levels = Sequence[NDArray[np.uint8]]

_THREADS = 8


def check_slide(
    path: Path,
    levels: Levels | None = None,
    *,
    mpp: float | None = None,
    opener: Opener = open_slide,
) -> None:
    """Raise AssertionError unless the reader conforms to `Slide` on this file.

    Parameters
    ----------
    path
        The file.
    levels
        True pixels of each level, ``(H, W, 3)`` uint8, finest first; None uses the reader's own
        full levels, so that only regions, threads, pickling and refusals are checked.
    mpp
        Micrometres per pixel that the file states; None skips the check.
    opener
        Opens the file.

    Examples
    --------
    >>> check_slide(Path("scan.npy"), [pixels], opener=NpySlide)  # doctest: +SKIP
    """
    with opener(path) as slide:
        if levels is None:
            levels = [slide.read(_full(slide, i)) for i in range(len(slide.pyramid.extents))]
        _check_facts(slide, path, mpp)
        _check_override(opener, path)
        _check_levels(slide, levels)
        _check_windows(slide, levels)
        _check_windows(pickle.loads(pickle.dumps(slide)), levels[:1])
        _check_refusals(slide)
        kept = slide.read(_full(slide, len(levels) - 1))
    assert np.array_equal(slide.read(_full(slide, len(levels) - 1)), kept), "differs after close"
    if kept.flags.writeable:
        kept[:] = 0
    again = slide.read(_full(slide, len(levels) - 1))
    assert np.array_equal(again, levels[-1]), "changing the result changes later reads"
    slide.close()


def _full(slide: Slide, level: int) -> Region:
    return slide.pyramid.extents[level].region(level)


def _check_facts(slide: Slide, path: Path, mpp: float | None) -> None:
    assert slide.path == path, slide.path
    assert slide.name == slide_name(path), slide.name
    assert slide.format.strip(), "no format"
    found = slide.pyramid.mpp
    assert (found is None) == (slide.mpp_source == "none"), slide.mpp_source
    if mpp is not None:
        assert found is not None, "no mpp"
        assert math.isclose(found, mpp, rel_tol=1e-3), found
    for level, extent in enumerate(slide.pyramid.extents):
        streams = slide.streams(level)
        assert not isinstance(streams, NotCopyable) or streams.reason, "no reason"
        block = slide.native_block(level)
        assert block.height >= 1, extent
    check_around_a_point(slide)
    shown = slide._repr_html_()
    assert slide.name in shown, shown
    assert "data:image/jpeg" in shown, "no thumbnail"


def check_around_a_point(slide: Slide) -> None:
    """Raise AssertionError unless reading at the mpp of level 0 returns its pixels."""
    extent, mpp = slide.pyramid.extent, slide.pyramid.mpp
    if mpp is None:
        return
    height, width = min(extent.height, 40), min(extent.width, 30)
    y, x = (extent.height - height) // 2, (extent.width - width) // 2
    found = slide.read(
        mpp=mpp, centre_um=((y + height / 2) * mpp, (x + width / 2) * mpp), size_px=(height, width)
    )
    expected = slide.read(Region(level=0, y=y, x=x, height=height, width=width))
    assert np.array_equal(found, expected), "reading at the mpp of level 0 differs from level 0"
    longest = max(slide.thumbnail(20).shape[:2])
    assert longest == min(20, max(extent.height, extent.width)), longest


def _check_override(opener: Opener, path: Path) -> None:
    with opener(path, mpp=1.5) as slide:
        assert (slide.pyramid.mpp, slide.mpp_source) == (1.5, "option")
        copy: Slide = pickle.loads(pickle.dumps(slide))
    assert (copy.pyramid.mpp, copy.mpp_source) == (1.5, "option"), "mpp is lost by pickling"


def _check_levels(slide: Slide, levels: Levels) -> None:
    sizes = [(extent.height, extent.width) for extent in slide.pyramid.extents]
    assert sizes == [level.shape[:2] for level in levels], sizes
    for number, expected in enumerate(levels):
        found = slide.read(_full(slide, number))
        assert found.dtype == np.uint8, found.dtype
        assert np.array_equal(found, expected), f"level {number} differs"


def _check_windows(slide: Slide, levels: Levels) -> None:
    regions = [region for level, full in enumerate(levels) for region in _windows(level, full)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for region, found in zip(regions, pool.map(slide.read, regions), strict=True):
            assert np.array_equal(found, levels[region.level][region.slices]), f"{region} differs"


def _windows(level: int, full: NDArray[np.uint8]) -> list[Region]:
    """Return about 200 regions that cross tile borders or end at the edges."""
    height, width = full.shape[:2]
    down, right = max(29, height // 14), max(53, width // 14)
    return [
        Region(level=level, y=y, x=x, height=min(33, height - y), width=min(21, width - x))
        for y in range(0, height, down)
        for x in range(0, width, right)
    ]


def _check_refusals(slide: Slide) -> None:
    extent = slide.pyramid.extent
    outside = (
        Region(level=0, y=-1, x=0, height=1, width=1),
        Region(level=0, y=0, x=extent.width, height=1, width=1),
        Region(level=0, y=0, x=0, height=extent.height + 1, width=1),
        Region(level=len(slide.pyramid.extents), y=0, x=0, height=1, width=1),
    )
    for region in outside:
        try:
            slide.read(region)
        except RegionError:
            continue
        raise AssertionError(f"read {region}, which is outside; expected RegionError")
