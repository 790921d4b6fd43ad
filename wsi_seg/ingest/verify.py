"""Owns comparing a store with the slide it was made from, on sampled places."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import BatchError, StoreError, WsiSegError
from wsi_seg.geometry import Extent, Region
from wsi_seg.progress import Progress
from wsi_seg.slides import find_slides, open_slide, slide_name
from wsi_seg.slides.window import Window
from wsi_seg.store.collection import Collection, SlideStore

# Mean absolute difference of px that a lossy encoding may cause; another slide differs by more.
_LOSSY = 12.0
# Places compared on each level; corners and the middle are always among them.
_SAMPLES = 16
_SIDE_PX = 256


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared: levels that came from the slide, and px in all."""

    slide: str
    levels: int
    pixels: int


def verify_slides(
    paths: Sequence[Path],
    collection: Collection,
    *,
    except_for: Container[str] = (),
    progress: Progress,
) -> list[Verified]:
    """Compare the stores of a collection with their slides; see `verify_slide`.

    Parameters
    ----------
    paths
        The files and folders that were tiled.
    collection
        What they were tiled into.
    except_for
        Names of slides to leave out, such as those that could not be tiled.
    progress
        Advanced by slides.

    Raises
    ------
    BatchError
        If some differ or cannot be read; all others are the same.
    """
    files = [file for file in find_slides(list(paths)) if slide_name(file) not in except_for]
    verified: list[Verified] = []
    failures: dict[str, str] = {}
    progress.start("verify", len(files), "slides")
    for file in files:
        name = slide_name(file)
        try:
            verified.append(verify_slide(collection[name], file))
        except WsiSegError as error:
            failures[name] = str(error)
        progress.advance(1)
    progress.finish()
    if failures:
        raise BatchError(failures, done=len(verified))
    return verified


def verify_slide(store: SlideStore, source: Path, *, seed: int = 0) -> Verified:
    """Compare sampled px of a store with its slide; levels computed by us are left out.

    They must be equal, and where we recoded with loss, close to each other.

    Parameters
    ----------
    store
        Made from ``source``.
    source
        The slide file.
    seed
        Decides which places are compared besides the corners and the middle.

    Raises
    ------
    StoreError
        If any px differs, naming the region.
    SlideError
        If the slide cannot be read there.
    """
    compared = pixels = 0
    with open_slide(source, window=tiled_window(store)) as slide:
        for level, extent in enumerate(slide.pyramid.extents):
            if store.pyramid.extents[level] != extent:
                raise StoreError(
                    f"{store.path}: level {level} has {store.pyramid.extents[level]}, its slide "
                    f"{source} has {extent}; tile it again with --overwrite"
                )
            for region in sampled_regions(extent, level, seed=seed):
                exact = store.image.arrays[level].encoding.loss in {None, 0}
                if not _same(store.image.read(region), slide.read(region), exact=exact):
                    raise StoreError(
                        f"{store.path}: {region} differs from {source}; tile it again with "
                        "--overwrite"
                    )
                pixels += region.height * region.width
            compared += 1
    return Verified(store.name, compared, pixels)


def tiled_window(store: SlideStore) -> Window | None:
    """Window that a slide was tiled with; None if that was left to its file."""
    noted = store.info.window
    return Window(*noted) if noted is not None and noted[0] < noted[1] else None


def _same(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], *, exact: bool) -> bool:
    if exact:
        return np.array_equal(ours, theirs)
    return bool(np.abs(ours.astype(np.int16) - theirs).mean() <= _LOSSY)


def sampled_regions(extent: Extent, level: int, *, seed: int) -> list[Region]:
    """Place windows: the four corners, the middle, and others drawn by the seed."""
    height, width = min(_SIDE_PX, extent.height), min(_SIDE_PX, extent.width)
    bottom, right = extent.height - height, extent.width - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    draws = np.random.default_rng((seed, level))
    while len(places) < _SAMPLES:
        places.append((int(draws.integers(bottom + 1)), int(draws.integers(right + 1))))
    return [
        Region(level=level, y=y, x=x, height=height, width=width) for y, x in dict.fromkeys(places)
    ]
