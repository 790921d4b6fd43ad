"""Owns the comparison of a store with its slide file, in sampled regions."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.counts import counted
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.names import NamedSlides
from wsi_seg.progress import Progress
from wsi_seg.slides import open_slide
from wsi_seg.slides.icc import converted
from wsi_seg.slides.window import Window
from wsi_seg.store.collection import Collection
from wsi_seg.store.slide_store import SlideStore

# Mean absolute difference that lossy encoding can cause; different slides differ by more.
_LOSSY = 12.0
# Number of regions per level, which include the corners and the centre.
_SAMPLES = 16
_SIDE_PX = 256


@dataclass(frozen=True, slots=True)
class Verified:
    """Result of one slide: number of levels of its file, and of pixels compared."""

    slide: str
    levels: int
    pixels: int


@dataclass(frozen=True, slots=True)
class VerifyReport(SlidesReport[Verified]):
    """Result of verification; ``failures`` are slides that differ or cannot be read."""

    def lines(self) -> list[str]:
        """Format the report as lines of text."""
        pixels = sum(slide.pixels for slide in self.slides) / 1e6
        slides = counted(len(self.slides), "slide")
        return [f"verified {pixels:.1f} million pixels of {slides}: all the same"]


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
        Slide files that were tiled.
    collection
        Collection of their stores.
    except_for
        Names of slides to skip, such as those that could not be tiled.
    progress
        Advanced by the number of slides.

    Returns
    -------
    VerifyReport
        Its `VerifyReport.require_whole` raises if slides differ or cannot be read.
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
    """Compare sampled regions of a store with its slide file, on all levels of the file.

    Pixels must be equal; those of lossy levels must be close.

    Parameters
    ----------
    store
        Store that was made from ``source``.
    source
        The slide file.

    Raises
    ------
    StoreError
        If pixels differ; names the region.
    SlideError
        If the slide cannot be read.
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
    """Return the window of grey values that a slide was tiled with; None if it was not set."""
    stored = store.info.window
    return Window(*stored) if stored is not None and stored[0] < stored[1] else None


def _same(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], *, exact: bool) -> bool:
    if exact:
        return np.array_equal(ours, theirs)
    return bool(np.abs(ours.astype(np.int16) - theirs).mean() <= _LOSSY)


def sampled_regions(extent: Extent, level: int) -> list[Region]:
    """Return the corners, the centre and pseudorandom regions of a level, always the same."""
    height, width = min(_SIDE_PX, extent.height), min(_SIDE_PX, extent.width)
    bottom, right = extent.height - height, extent.width - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    draws = np.random.default_rng((0, level))
    while len(places) < _SAMPLES:
        places.append((int(draws.integers(bottom + 1)), int(draws.integers(right + 1))))
    return [
        Region(level=level, y=y, x=x, height=height, width=width) for y, x in dict.fromkeys(places)
    ]
