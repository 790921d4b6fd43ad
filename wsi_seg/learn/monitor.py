"""Owns the validation metrics that networks are selected by; ``train.monitor`` names one.

A case is a slide, or all slices of a volume.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.evaluation.calibration import Reliability, pooled
from wsi_seg.evaluation.scores import Scores
from wsi_seg.learn.history import Row
from wsi_seg.postprocess.rule import least_above
from wsi_seg.reading.slices import case_of

# Rules of ``triplet``: if enough pixels are above a high threshold, all pixels above a low one are
# of the class. They include the rules of the SIIM-ACR 2019 winner.
_TOPS = (0.5, 0.6, 0.7, 0.75, 0.9)
_BOTTOMS = (0.2, 0.3, 0.4, 0.5)
_LEAST_PX = (0, 30, 100, 300, 600, 1000, 2000, 3000)
RULES = tuple(r for r in itertools.product(_TOPS, _BOTTOMS, _LEAST_PX) if r[1] <= r[0])

SlideCounts = Mapping[str, Mapping[str, Reliability]]


def figures(scores: Scores, values: SlideCounts, *, exclusive: bool = False) -> Row:
    """Compute the metrics of all held-out slides; higher is better, except for the loss.

    ``val_dice`` is the Dice of all pixels pooled, averaged over classes. ``val_dice_slide`` is the
    Dice of each case, averaged over cases and classes; a class that is absent and not predicted
    counts 1, a false positive 0. ``val_dice_objects`` is the same over the cases that contain the
    class, and missing if none does. ``val_loss`` is the mean binary cross-entropy of all pixels and
    classes. ``val_soft_dice`` is the Dice of the probabilities (1 - Dice loss), averaged over the
    cases that contain the class. ``val_triplet`` is the best ``val_dice_slide`` over rules of two
    thresholds and an area, for overlapping classes only.

    Parameters
    ----------
    scores
        Scores of the label maps.
    values
        Pixel counts by predicted probability, of each slide and class.
    exclusive
        Whether the classes are exclusive.
    """
    cases = [score.counts for score in scores.cases]
    if not cases:  # all pixels are ignored
        return {}
    shown = [counts.dice for counts in cases if counts.tp + counts.fn]
    row = {
        "val_dice": statistics.fmean(scores.pooled(name).dice for name in scores.class_names),
        "val_dice_slide": statistics.fmean(counts.dice for counts in cases),
    }
    if shown:
        row["val_dice_objects"] = statistics.fmean(shown)
    row["val_loss"] = statistics.fmean(one.loss for one in pooled(values.values()).values())
    found = _counts_of_cases(values)
    with_class = [counts for counts in (case.sum(axis=0) for case in found) if counts[:, 1].any()]
    if with_class:
        row["val_soft_dice"] = statistics.fmean(_soft_dice(counts) for counts in with_class)
    if not exclusive:
        row["val_triplet"] = _triplet(found)
    return row


def _counts_of_cases(values: SlideCounts) -> list[NDArray[np.int64]]:
    """Stack pixel counts by probability and truth per case and class, ``(slices, 256, 2)``."""
    cases: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for slide, classes in values.items():
        for name, found in classes.items():
            cases.setdefault((case_of(slide), name), []).append(found.counts)
    return [np.stack(slices) for slices in cases.values()]


def _soft_dice(counts: NDArray[np.int64]) -> float:
    """Return the Dice of the probabilities of a case that contains the class."""
    found = (np.arange(256) / 255) @ counts
    return 2 * float(found[1]) / float(found.sum() + counts[:, 1].sum())


def _triplet(cases: Sequence[NDArray[np.int64]]) -> float:
    """Return the best mean Dice over the rules."""
    size = [len(slices) for slices in cases]
    first = np.cumsum([0, *size[:-1]])
    # Pixels at or above each value, by slice, value and truth.
    above = np.concatenate(cases)[:, ::-1].cumsum(axis=1)[:, ::-1]
    above = np.concatenate([above, np.zeros_like(above[:, :1])], axis=1)
    return max(_dice_of_rule(above, first, *rule) for rule in RULES)


def _dice_of_rule(
    above: NDArray[np.int64], first: NDArray[np.int64], top: float, bottom: float, least_px: int
) -> float:
    """Return the mean Dice of cases under one rule, which is applied to each slice."""
    sure = above[:, least_above(top)].sum(axis=1) >= max(1, least_px)
    kept = above[:, least_above(bottom)] * sure[:, None]
    right, found, true = (
        np.add.reduceat(pixels, first) for pixels in (kept[:, 1], kept.sum(axis=1), above[:, 0, 1])
    )
    total = found + true
    return float(np.where(total > 0, 2 * right / np.maximum(total, 1), 1.0).mean())
