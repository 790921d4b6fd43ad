"""Owns hard-negative mining: confident false positives of a model, for its next training round.

The confidence of a pixel is its largest probability, if that is at least one half and no annotated
pixel is within a ring around it, because imprecise outlines are not hard negatives. Optionally,
structures that were missed completely are hard, too, with the probability of background as
confidence. Overlapping classes are mined one by one, and the maximum over them is taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.classes import IGNORE
from wsi_seg.errors import StoreError
from wsi_seg.evaluation.pairing import compared, require_same_slide
from wsi_seg.masks.labels import write_values
from wsi_seg.progress import Progress
from wsi_seg.reading.channels import largest
from wsi_seg.reading.resample import read_label
from wsi_seg.sampling.importance import HARD_NEGATIVES
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore

# Maximum length of the map's longer side; predictions have a level of about that size.
_MAX_PX = 2048

# Steps along y and x of a dither whose lowest values are evenly spread: 1 / g and 1 / g^2 with
# g^3 = g + 1 (Roberts, 2018, *The unreasonable effectiveness of quasirandom sequences*).
_SPREAD = (0.7548776662466927, 0.5698402909980532)

# Smallest probability * 255 of a pixel that counts as found.
_FOUND = 128


@dataclass(frozen=True, slots=True)
class HardRule:
    """Which pixels are hard.

    Parameters
    ----------
    least
        Smallest probability of a hard false positive.
    missed
        Whether structures without any found pixel are hard, too.
    """

    least: float = 0.5
    missed: bool = False


@dataclass(frozen=True, slots=True)
class MinedSlide:
    """Result for one slide: the fraction of hard pixels, and their mean confidence."""

    name: str
    share: float
    confidence: float


@dataclass(frozen=True, slots=True)
class MineReport(SlidesReport[MinedSlide]):
    """Report of mining."""

    def lines(self) -> list[str]:
        """Report as lines of text."""
        return [
            f"{s.name}: {s.share:.2%} of the slide is hard, mean confidence {s.confidence:.2f}"
            for s in self.slides
        ]


def mine(
    predictions: Predictions,
    slides: Collection | Mapping[str, SlideStore],
    *,
    label: str = "annotations",
    ring_um: float = 50.0,
    cap: float = 0.02,
    rule: HardRule = HardRule(),
    progress: Progress,
) -> MineReport:
    """Write the label ``hard_negatives`` of each predicted slide; the result is deterministic.

    Parameters
    ----------
    predictions
        Predictions of a model that was not trained on these slides.
    slides
        Stores of the slides by name.
    label
        Name of the ground-truth label.
    ring_um
        Width of the ring around annotated pixels to exclude, in um (level-0 pixels if mpp is
        unknown).
    cap
        Maximum fraction of a slide that becomes hard; the most confident errors are kept.
    rule
        Which pixels are hard.
    progress
        Advanced by slides.

    Returns
    -------
    MineReport
        `MineReport.require_whole` raises if a slide could not be mined, for example because the
        model was trained on it.

    Raises
    ------
    StoreError
        If there are no predictions.
    """
    names = predictions.require_names()

    def work(name: str) -> MinedSlide:
        slide = slides[name]
        confidence, downsample = hard_px(
            predictions[name], slide, label=label, ring_um=ring_um, cap=cap, rule=rule
        )
        write_values(slide, HARD_NEGATIVES, confidence, downsample=downsample)
        found = confidence[confidence > 0]
        mean = float(found.mean()) / 255 if found.size else 0.0
        return MinedSlide(name, found.size / confidence.size, mean)

    batch = run_each(names, work, title="mine", progress=progress)
    return MineReport(tuple(batch.results.values()), failures=batch.failures)


def hard_px(
    found: SlideStore,
    slide: SlideStore,
    *,
    label: str,
    ring_um: float,
    cap: float,
    rule: HardRule = HardRule(),
) -> tuple[NDArray[np.uint8], float]:
    """Compute the confidence of hard pixels at a coarse level; see `mine`.

    Returns
    -------
    confidence : NDArray[np.uint8]
        ``(H, W)``, probability * 255 of hard pixels, 0 elsewhere.
    downsample : float
        Level-0 pixels per pixel.

    Raises
    ------
    StoreError
        If the model was trained on the slide, or the prediction is of another slide or has no
        probabilities.
    """
    if found.prediction.learned_from_slide:
        raise StoreError(
            f"{found.path}: its model was trained on slide {slide.name!r}, where it makes fewer "
            "errors; mine predictions of slides that were held out"
        )
    require_same_slide(found, slide)
    levels = found.pyramid.extents
    level = next(
        (n for n, extent in enumerate(levels) if max(extent.height, extent.width) <= _MAX_PX),
        len(levels) - 1,
    )
    downsample = slide.pyramid.extent.width / levels[level].width
    ring_px = ring_um / ((slide.pyramid.mpp or 1.0) * downsample)
    confidence = np.maximum.reduce(
        [
            _confidence(one, true.label(label), level, ring_px=ring_px, rule=rule)
            for one, true in compared(found, slide, label)
        ]
    )
    return _capped(confidence, round(cap * confidence.size)), downsample


def _confidence(
    found: SlideStore, true: Multiscale, level: int, *, ring_px: float, rule: HardRule
) -> NDArray[np.uint8]:
    """Compute the confidence ``(H, W)`` of hard pixels of a level, for classes without overlap."""
    extent = found.pyramid.extents[level]
    confidence = largest(found.probabilities.read(extent.region(level), cached=False))
    truth = read_label(true, extent, 0, 0, height=extent.height, width=extent.width)
    if found.image.names_classes and len(found.image.classes) == 1:
        # Pixels of other annotated classes may be hard negatives of the only predicted class.
        truth = found.image.classes.recoding(true.classes)[truth]
    near = truth > 0
    # Before `confidence` is reduced to false positives.
    missed = _missed(confidence, near & (truth != IGNORE)) if rule.missed else None
    if near.any():  # scipy needs at least one annotated pixel to measure from
        near = ndimage.distance_transform_edt(~near) <= ring_px
    confidence[(confidence < rule.least * 255) | near | (truth == IGNORE)] = 0
    if missed is not None:
        confidence = np.maximum(confidence, missed)
    return confidence


def _missed(confidence: NDArray[np.uint8], true: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the probability of background in structures without found pixels, 0 elsewhere."""
    parts, count = ndimage.label(true)
    if not count:
        return np.zeros_like(confidence)
    highest = np.append(0, ndimage.maximum(confidence, parts, np.arange(1, count + 1)))
    unseen = true & (highest[parts] < _FOUND)
    return np.where(unseen, 255 - confidence, 0).astype(np.uint8)


def _capped(confidence: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Keep the ``count`` most confident pixels; ties of the lowest kept value are spread evenly."""
    counts = np.bincount(confidence.ravel(), minlength=256)
    counts[0] = 0
    least = np.cumsum(counts[::-1])[::-1]  # number of pixels of at least each value
    if least[0] <= count:
        return confidence
    value = int(np.flatnonzero(least > count)[-1])
    kept = confidence > value
    y, x = np.nonzero(confidence == value)
    # In raster order, ties would all be taken from the top of the slide.
    spread = (y * _SPREAD[0] + x * _SPREAD[1]) % 1
    chosen = np.argsort(spread, kind="stable")[: count - np.count_nonzero(kept)]
    kept[y[chosen], x[chosen]] = True
    return np.where(kept, confidence, 0).astype(np.uint8)
