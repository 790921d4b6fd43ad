"""Owns the conformance checks that every stored image or label must pass."""

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_seg.errors import RegionError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.store import Multiscale

_THREADS = 8


def zarr_levels(group: Path) -> list[NDArray[np.uint8]]:
    """Read every level of an image or label with zarr-python only.

    Parameters
    ----------
    group
        Local folder of the group.

    Returns
    -------
    list[NDArray[np.uint8]]
        Pixels of each level, finest first: ``(H, W, C)``, or ``(H, W)`` for a label.

    Raises
    ------
    FileNotFoundError
        If the group does not exist.

    Examples
    --------
    >>> zarr_levels(Path("store.zarr/a/labels/tissue"))[0].shape  # doctest: +SKIP
    (333, 271)
    """
    scales: Any = zarr.open_group(str(group), mode="r").attrs["ome"]
    levels = []
    for dataset in scales["multiscales"][0]["datasets"]:
        array = zarr.open_array(str(group / dataset["path"]), mode="r")
        pixels = np.asarray(array[...], dtype=np.uint8)
        levels.append(pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1))
    return levels


def check_store(
    opener: Callable[[], Multiscale], levels: Sequence[NDArray[np.uint8]], *, mpp: float | None
) -> None:
    """Raise AssertionError unless an image or label conforms to `Multiscale`.

    Parameters
    ----------
    opener
        Opens the image or label.
    levels
        True pixels of each level, ``(H, W, C)`` or ``(H, W)`` uint8, finest first, such as those of
        `zarr_levels`. They should vary, so that reading the wrong region is detected.
    mpp
        Micrometres per pixel of level 0; None if unknown.

    Examples
    --------
    >>> folder = Path("store.zarr")
    >>> check_store(  # doctest: +SKIP
    ...     lambda: open_collection(folder)["a"].image, zarr_levels(folder / "a"), mpp=0.5
    ... )
    """
    image = opener()
    _check_facts(image, levels, mpp)
    assert image == opener(), "opening it again compares unequal"
    assert hash(image) == hash(opener()), "opening it again gives another hash"
    copy: Multiscale = pickle.loads(pickle.dumps(image))
    assert copy == image, "a pickled copy compares unequal"
    for cached in (False, True):
        _check_regions(image, levels, cached=cached)
        _check_regions(copy, levels[:1], cached=cached)
        _check_ownership(image, levels[-1], cached=cached)
        _check_out(image, levels[0], cached=cached)
    _check_refusals(image)


def _check_facts(image: Multiscale, levels: Sequence[NDArray[np.uint8]], mpp: float | None) -> None:
    assert image.name.strip(), "no name"
    assert image.pyramid.mpp == mpp, image.pyramid.mpp
    assert image.pyramid.extents == tuple(Extent.of(level.shape) for level in levels), image.pyramid
    expected = None if levels[0].ndim == 2 else levels[0].shape[2]
    assert image.channels == expected, image.channels
    for level, true in enumerate(levels):
        assert image.chunk(level).area >= 1, image.chunk(level)
        found = image.read(_full(image, level))
        assert found.dtype == np.uint8, found.dtype
        assert np.array_equal(found, true), f"level {level} differs"


def _check_regions(image: Multiscale, levels: Sequence[NDArray[np.uint8]], *, cached: bool) -> None:
    regions = [region for level in range(len(levels)) for region in _regions(image, level)]
    with ThreadPoolExecutor(_THREADS) as pool:
        read = pool.map(lambda region: image.read(region, cached=cached), regions)
        for region, found in zip(regions, read, strict=True):
            assert np.array_equal(found, levels[region.level][region.slices]), f"{region} differs"


def _regions(image: Multiscale, level: int) -> list[Region]:
    """Return up to 25 regions: inside a chunk, across chunk borders, and at all edges."""
    extent, chunk = image.pyramid.extents[level], image.chunk(level)
    height, width = min(chunk.height + 3, extent.height), min(chunk.width // 2 + 1, extent.width)
    ys = np.unique(np.linspace(0, extent.height - height, 5).astype(int)).tolist()
    xs = np.unique(np.linspace(0, extent.width - width, 5).astype(int)).tolist()
    return [Region(level=level, y=y, x=x, height=height, width=width) for y in ys for x in xs]


def _check_ownership(image: Multiscale, coarsest: NDArray[np.uint8], *, cached: bool) -> None:
    region = _full(image, len(image.pyramid.extents) - 1)
    found = image.read(region, cached=cached)
    found[...] = ~found
    again = image.read(region, cached=cached)
    assert np.array_equal(again, coarsest), "changing the result changes later reads"


def _check_out(image: Multiscale, finest: NDArray[np.uint8], *, cached: bool) -> None:
    """Check that ``out`` may be a view of a larger array, and that only the view is filled."""
    for region in _regions(image, 0)[::7]:
        true = finest[region.slices]
        around = np.full((region.height + 2, region.width + 3, *true.shape[2:]), 7, dtype=np.uint8)
        out = around[1:-1, 2:-1]
        assert image.read(region, cached=cached, out=out) is out, "out is not returned"
        assert np.array_equal(out, true), f"{region} differs in out"
        out[...] = 7
        assert (around == 7).all(), "pixels next to out were changed"
    shape = true.shape
    fixed = np.zeros(shape, dtype=np.uint8)
    fixed.flags.writeable = False
    wrong: tuple[NDArray[Any], ...] = (
        np.zeros((shape[0] + 1, *shape[1:]), dtype=np.uint8),
        np.zeros((*shape, 1), dtype=np.uint8),
        np.zeros(shape, dtype=np.int8),
        fixed,
    )
    for given in wrong:
        try:
            image.read(region, cached=cached, out=given)
        except StoreError:
            continue
        raise AssertionError(f"filled out {given.shape} {given.dtype}; expected StoreError")


def _check_refusals(image: Multiscale) -> None:
    count = len(image.pyramid.extents)
    for level, extent in enumerate(image.pyramid.extents):
        for region in (
            Region(level=level, y=-1, x=0, height=1, width=1),
            Region(level=level, y=0, x=-1, height=1, width=1),
            Region(level=level, y=0, x=extent.width, height=1, width=1),
            Region(level=level, y=0, x=0, height=extent.height + 1, width=1),
            Region(level=count, y=0, x=0, height=1, width=1),
        ):
            try:
                image.read(region)
            except RegionError:
                continue
            raise AssertionError(f"read {region}, which is outside; expected RegionError")
    for level in (-1, count):
        try:
            image.chunk(level)
        except RegionError:
            continue
        raise AssertionError(f"got a chunk of level {level}; expected RegionError")


def _full(image: Multiscale, level: int) -> Region:
    return image.pyramid.extents[level].region(level)
