"""Owns the figures of validation that networks are chosen by: ``train.monitor`` names one.

A case is a slide, or all slices of a volume together.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.evaluation.calibration import Reliability, pooled
from wsi_seg.evaluation.scores import Counts, Scores
from wsi_seg.learn.history import Row
from wsi_seg.postprocess.rule import least_above
from wsi_seg.reading.slices import SLICE_NAME

# Rules that ``triplet`` tries: a class counts as present where enough pixels are above a high
# threshold, and then all pixels above a low one are taken. The last are pixels of the prediction.
_TOPS = (0.5, 0.7, 0.9)
_BOTTOMS = (0.2, 0.35, 0.5)
_LEAST_PX = (0, 30, 100, 300, 1000, 3000)

SlideCounts = Mapping[str, Mapping[str, Reliability]]


def figures(scores: Scores, values: SlideCounts, *, exclusive: bool = False) -> Row:
    """Figures of all slides held out; the higher the better, except for the loss.

    ``val_dice`` is the Dice of all pixels pooled, averaged over classes. ``val_dice_slide`` is that
    of each case, averaged over cases and classes; a class that is neither on a case nor found there
    counts 1, one that is found where it is not counts 0. ``val_dice_objects`` is the same over the
    cases that show the class, and absent where none does. ``val_loss`` is the mean cross-entropy
    of all pixels and classes, of each class against the rest. ``val_triplet`` is the best
    ``val_dice_slide`` of a few rules of two thresholds and an area; exclusive classes, which are
    not decided one by one, have none.

    Parameters
    ----------
    scores
        Of the label maps.
    values
        Pixels of each slide and class by the probability that was predicted.
    exclusive
        Whether the classes are.
    """
    cases: dict[tuple[str, str], Counts] = {}
    for score in scores.slides:
        key = case_of(score.slide), score.class_name
        cases[key] = cases.get(key, Counts(0, 0, 0)) + score.counts
    shown = [counts.dice for counts in cases.values() if counts.tp + counts.fn]
    row = {
        "val_dice": statistics.fmean(scores.pooled(name).dice for name in scores.class_names),
        "val_dice_slide": statistics.fmean(counts.dice for counts in cases.values()),
    }
    if shown:
        row["val_dice_objects"] = statistics.fmean(shown)
    row["val_loss"] = statistics.fmean(one.loss for one in pooled(values.values()).values())
    if not exclusive:
        row["val_triplet"] = _triplet(values)
    return row


def case_of(slide: str) -> str:
    """Volume that a slide is a slice of, or the slide."""
    match = SLICE_NAME.fullmatch(slide)
    return slide if match is None else match["volume"]


def _triplet(values: SlideCounts) -> float:
    """Best Dice over the rules, averaged over cases and classes."""
    cases: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for slide, classes in values.items():
        for name, found in classes.items():
            cases.setdefault((case_of(slide), name), []).append(found.counts)
    rules = [r for r in itertools.product(_TOPS, _BOTTOMS, _LEAST_PX) if r[1] <= r[0]]
    return max(
        statistics.fmean(_dice(slices, *rule) for slices in cases.values()) for rule in rules
    )


def _dice(slices: Sequence[NDArray[np.int64]], top: float, bottom: float, least_px: int) -> float:
    """Dice of a case, each of whose slices keeps what is above ``bottom`` or nothing."""
    total = Counts(0, 0, 0)
    for counts in slices:
        true = int(counts[:, 1].sum())
        kept = counts[least_above(bottom) :]
        if counts[least_above(top) :].sum() < max(1, least_px):
            kept = kept[:0]
        found, right = int(kept.sum()), int(kept[:, 1].sum())
        total += Counts(right, found - right, true - right)
    return total.dice
