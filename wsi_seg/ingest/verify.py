"""Owns comparing a store with the slide it was made from, on sampled places."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.names import NamedSlides
from wsi_seg.progress import Progress
from wsi_seg.slides import open_slide
from wsi_seg.slides.icc import converted
from wsi_seg.slides.window import Window
from wsi_seg.store.collection import Collection
from wsi_seg.store.slide_store import SlideStore

# Mean absolute difference of pixels that a lossy encoding may cause; another slide differs by more.
_LOSSY = 12.0
# Places compared on each level; corners and the middle are always among them.
_SAMPLES = 16
_SIDE_PX = 256


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared: levels that came from the slide, and pixels in all."""

    slide: str
    levels: int
    pixels: int


@dataclass(frozen=True, slots=True)
class VerifyReport(SlidesReport[Verified]):
    """What was compared; slides that differ or cannot be read failed."""

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        pixels = sum(slide.pixels for slide in self.slides) / 1e6
        return [f"verified {pixels:.1f} million pixels of {len(self.slides)} slides: all the same"]


def verify_slides(
    slides: NamedSlides,
    collection: Collection,
    *,
    except_for: Container[str] = (),
    progress: Progress,
) -> VerifyReport:
    """Compare the stores of a collection with their slides; see `verify_slide`.

    Parameters
    ----------
    slides
        The files that were tiled.
    collection
        What they were tiled into.
    except_for
        Names of slides to leave out, such as those that could not be tiled.
    progress
        Advanced by slides.

    Returns
    -------
    VerifyReport
        Its `VerifyReport.require_whole` raises if some differ or cannot be read.
    """
    named = {name: file for file, name in slides.names.items() if name not in except_for}
    batch = run_each(
        named,
        lambda name: verify_slide(collection[name], named[name]),
        title="verify",
        progress=progress,
    )
    return VerifyReport(tuple(batch.results.values()), failures=batch.failures)


def verify_slide(store: SlideStore, source: Path) -> Verified:
    """Compare sampled pixels of a store with its slide; levels computed by us are left out.

    They must be equal, and where we recoded with loss, close to each other.

    Parameters
    ----------
    store
        Made from ``source``.
    source
        The slide file.

    Raises
    ------
    StoreError
        If any pixel differs, naming the region.
    SlideError
        If the slide cannot be read there.
    """
    compared = pixels = 0
    window, scene = tiled_window(store), store.image.attributes.get("scene")
    number = str(scene) if isinstance(scene, int) else None
    with open_slide(source, window=window, scene=number) as file:
        slide = file if store.info.icc is None else converted(file)
        for level, extent in enumerate(slide.pyramid.extents):
            if store.pyramid.extents[level] != extent:
                raise StoreError(
                    f"{store.path}: level {level} has {store.pyramid.extents[level]}, its slide "
                    f"{source} has {extent}; tile it again with --overwrite"
                )
            for region in sampled_regions(extent, level):
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
    stored = store.info.window
    return Window(*stored) if stored is not None and stored[0] < stored[1] else None


def _same(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], *, exact: bool) -> bool:
    if exact:
        return np.array_equal(ours, theirs)
    return bool(np.abs(ours.astype(np.int16) - theirs).mean() <= _LOSSY)


def sampled_regions(extent: Extent, level: int) -> list[Region]:
    """Place windows: the four corners, the middle, and others at random, always the same."""
    height, width = min(_SIDE_PX, extent.height), min(_SIDE_PX, extent.width)
    bottom, right = extent.height - height, extent.width - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    draws = np.random.default_rng((0, level))
    while len(places) < _SAMPLES:
        places.append((int(draws.integers(bottom + 1)), int(draws.integers(right + 1))))
    return [
        Region(level=level, y=y, x=x, height=height, width=width) for y, x in dict.fromkeys(places)
    ]
