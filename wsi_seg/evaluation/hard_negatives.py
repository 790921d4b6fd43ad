"""Owns hard-negative mining: where a model was sure of what is not there, for its next round.

Confidence of a pixel is its largest probability, where that is at least one half, no class is
annotated and no annotated pixel is within a ring around it: a near miss at an outline is not a
hard negative. If asked for, structures that were missed as a whole are hard places too, each pixel
with the probability of background. Classes that overlap are looked at one by one, and a pixel is as
hard as it is for one of them.
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
from wsi_seg.reading.resample import read_label
from wsi_seg.sampling.importance import HARD_NEGATIVES
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore

# Longer side of the map at most; predictions have a level of about that size.
_LARGEST_PX = 2048

# Steps down and across of a dither whose lowest pixels are spread evenly over any area: 1 / g and 1
# / g^2, g^3 = g + 1 (Roberts, 2018, *The unreasonable effectiveness of quasirandom sequences*).
_SPREAD = (0.7548776662466927, 0.5698402909980532)


# Probability * 255 from which a pixel counts as found.
_FOUND = 128


@dataclass(frozen=True, slots=True)
class HardRule:
    """What is hard.

    Parameters
    ----------
    least
        Least probability of a false positive.
    missed
        Whether structures in which no pixel was found are hard too.
    """

    least: float = 0.5
    missed: bool = False


@dataclass(frozen=True, slots=True)
class MinedSlide:
    """Result for one slide: the share of its pixels that are hard, and their mean confidence."""

    name: str
    share: float
    confidence: float


@dataclass(frozen=True, slots=True)
class MineReport(SlidesReport[MinedSlide]):
    """What was mined."""

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
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
    """Write the layer ``hard_negatives`` of each predicted slide; a second time, it is the same.

    Parameters
    ----------
    predictions
        Made by a model that did not learn from these slides.
    slides
        Their stores, by name.
    label
        Name under ``labels/`` of the truth.
    ring_um
        Width of the ring around annotated pixels that is left out; pixels of level 0 where mpp is
        unknown.
    cap
        Largest share of a slide that may become hard negatives; the surest errors are kept.
    rule
        What is hard.
    progress
        Advanced by slides.

    Returns
    -------
    MineReport
        Its `MineReport.require_whole` raises if some slides could not be mined, for example
        because the model learned from them.

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
    """Confidence of each pixel at a low level, and its level-0 pixels per pixel; see `mine`.

    Returns
    -------
    confidence : NDArray[np.uint8]
        ``(H, W)``, probability * 255 on hard pixels, 0 elsewhere.
    downsample : float
        Of that level.

    Raises
    ------
    StoreError
        If the model learned from the slide, or the prediction is of another one or holds class
        ids alone.
    """
    if found.prediction.learned_from_slide:
        raise StoreError(
            f"{found.path}: its model learned from slide {slide.name!r}, so its "
            "mistakes there do not show; mine predictions of slides that were held out"
        )
    require_same_slide(found, slide)
    levels = found.pyramid.extents
    level = next(
        (n for n, extent in enumerate(levels) if max(extent.height, extent.width) <= _LARGEST_PX),
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
    """How hard each pixel of a level is, ``(H, W)``, by any class of the prediction."""
    extent = found.pyramid.extents[level]
    confidence: NDArray[np.uint8]
    confidence = found.probabilities.read(extent.region(level), cached=False).max(axis=2)
    truth = read_label(true, extent, 0, 0, height=extent.height, width=extent.width)
    if found.image.names_classes and len(found.image.classes) == 1:
        # Other classes that are drawn there are no excuse.
        truth = found.image.classes.recoding(true.classes)[truth]
    near = truth > 0
    # What is missed has to be looked for before false positives alone are kept.
    missed = _missed(confidence, near & (truth != IGNORE)) if rule.missed else None
    if near.any():  # else scipy measures from a place outside
        near = ndimage.distance_transform_edt(~near) <= ring_px
    confidence[(confidence < rule.least * 255) | near | (truth == IGNORE)] = 0
    if missed is not None:
        confidence = np.maximum(confidence, missed)
    return confidence


def _missed(confidence: NDArray[np.uint8], true: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probability of background in structures in which nothing was found, 0 elsewhere."""
    parts, count = ndimage.label(true)
    if not count:
        return np.zeros_like(confidence)
    highest = np.append(0, ndimage.maximum(confidence, parts, np.arange(1, count + 1)))
    unseen = true & (highest[parts] < _FOUND)
    return np.where(unseen, 255 - confidence, 0).astype(np.uint8)


def _capped(confidence: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Keep the ``count`` pixels of highest confidence; of the last value, pixels from all over."""
    counts = np.bincount(confidence.ravel(), minlength=256)
    counts[0] = 0
    least = np.cumsum(counts[::-1])[::-1]  # pixels of this value and more
    if least[0] <= count:
        return confidence
    value = int(np.flatnonzero(least > count)[-1])
    kept = confidence > value
    y, x = np.nonzero(confidence == value)
    # Pixels of one value are equally hard: the first ones would all be at the top of the slide.
    spread = (y * _SPREAD[0] + x * _SPREAD[1]) % 1
    chosen = np.argsort(spread, kind="stable")[: count - np.count_nonzero(kept)]
    kept[y[chosen], x[chosen]] = True
    return np.where(kept, confidence, 0).astype(np.uint8)
