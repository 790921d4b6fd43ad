"""Owns the search for a rule: every rule of a grid on out-of-fold predictions, scored two ways.

The rule that is best on all slides has an optimistic score, because it was chosen by it. So each
fold is also scored by the rule that is best on the other folds; the mean of those is what to
expect of new slides.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import require_none, run_each
from wsi_seg.choices import Scope
from wsi_seg.errors import BatchError, ConfigError, StoreError
from wsi_seg.evaluation.pairing import (
    compared,
    lack_of_truth,
    paired_strips,
    require_same_classes,
    require_same_slide,
    unscored_lines,
)
from wsi_seg.evaluation.rule_counts import ImageCounts, ObjectCounts
from wsi_seg.postprocess.rule import Rule, write_rule
from wsi_seg.postprocess.strips import argmax_strips
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import Collection, Predictions, SlideStore
from wsi_seg.store.class_view import ClassView

# Thresholds that are tried where none are named; 0 is what inference decides of exclusive classes.
_HIGHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_DOUBTS = (0.0, *_HIGHS)
_BASE = Rule()


def usual_highs(folds: Sequence[Predictions]) -> tuple[float, ...]:
    """High thresholds that are tried where none are named."""
    found = (one[name].image for one in folds for name in one.names()[:1])
    exclusive = any(image.names_classes and image.classes.is_exclusive for image in found)
    return _DOUBTS if exclusive else _HIGHS


def grid(
    highs: Sequence[float],
    lows: Sequence[float],
    min_areas: Sequence[float],
    *,
    per: Sequence[Scope] = ("image",),
    base: Rule = _BASE,
) -> tuple[Rule, ...]:
    """All rules of these thresholds with ``low <= high``; without lows, both are the high one.

    Parameters
    ----------
    highs, lows, min_areas, per
        What is tried, see `Rule`.
    base
        What all rules have in common, such as ``unit`` and ``min_object_area``.

    Raises
    ------
    ConfigError
        If there is no such rule.
    """
    rules = [
        replace(base, high_threshold=high, low_threshold=low, min_area=area, per=one)
        for one, high, area in itertools.product(per, highs, min_areas)
        for low in (lows or (high,))
        if low <= high
    ]
    if not rules:
        raise ConfigError(
            f"got high thresholds {list(highs)}, low ones {list(lows)}; expected a low one that is "
            "at most a high one"
        )
    return tuple(dict.fromkeys(rules))


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """One fold: the rule that is best on all others, and what it scores here."""

    fold: str
    rule: Rule
    score: float


@dataclass(frozen=True, slots=True)
class SearchReport:
    """Outcome of a search.

    Parameters
    ----------
    rule
        The best one.
    in_fold
        Its score on the slides it was chosen by.
    cross_fold
        Mean over slides of what other folds' choices score.
    folds
        Choice of all other folds, for each fold.
    rules, slides
        How many were tried, and on how many slides.
    unscored
        Slides without the true label.
    failures
        Why others could not be scored.
    """

    rule: Rule
    in_fold: float
    cross_fold: float
    folds: tuple[FoldChoice, ...]
    rules: int
    slides: int
    unscored: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides could not be scored; the others were used."""
        require_none(self.failures, done=self.slides)

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        return [
            f"{self.rules} rules on {self.slides} slides in {len(self.folds)} folds",
            f"best: {self.rule.describe()}",
            f"Dice {self.in_fold:.4f} on the slides it was chosen by (optimistic)",
            f"Dice {self.cross_fold:.4f} where each fold is scored by the others' choice",
            *unscored_lines(self.unscored),
        ]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)


def search(
    folds: Sequence[Predictions],
    slides: Collection,
    rules: Sequence[Rule] | None = None,
    *,
    label: str = "annotations",
    parts: int = 5,
    out: Path | str | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> SearchReport:
    """Find the rule with the best per-slide Dice, averaged over slides and classes.

    Slides without the label are left out and named in the result, and so are those that cannot
    be compared: its `SearchReport.require_whole` raises an error for the latter.

    Parameters
    ----------
    folds
        Predictions of each fold's own held-out slides; of a single collection, slides are dealt
        out to ``parts`` folds by name.
    slides
        Their stores, with the label ``label``.
    rules
        See `grid`; of equally good ones the first wins. None takes thresholds from 0.3 to 0.8,
        and 0 where classes are exclusive.
    label
        Name of the true label.
    parts
        Number of folds to make of one collection.
    out
        File for the rule that was found, with how it was found; None writes none.
    progress
        Advanced by slides.

    Returns
    -------
    SearchReport
        The rule, what it scores, and what to expect of it.

    Raises
    ------
    ConfigError
        If there are fewer than two slides with truth, or two folds.
    BatchError
        If slides cannot be compared, and too few are left.

    Examples
    --------
    >>> predictions = open_predictions("run/oof.zarr")  # doctest: +SKIP
    >>> rules = grid([0.6, 0.75], [0.3], [0, 500], base=Rule(max_hole_area=50))  # doctest: +SKIP
    >>> search([predictions], slides, rules, out="run/rule.json").rule  # doctest: +SKIP
    """
    rules = rules or grid(usual_highs(folds), (), (0.0,))
    fold: list[int] = []
    scores: list[NDArray[np.float64]] = []
    failures: dict[str, str] = {}
    unscored: dict[str, str] = {}
    for number, predictions in enumerate(folds):

        def work(name: str, found: Predictions = predictions) -> NDArray[np.float64] | str:
            if name not in slides:
                raise StoreError(f"{slides.path} has no slide {name!r}")
            lack = lack_of_truth(slides[name], label)
            return lack or slide_scores(found[name], slides[name], rules, label=label)

        batch = run_each(predictions.names(), work, title="search", progress=progress)
        failures |= batch.failures
        for name, found in batch.results.items():
            if isinstance(found, str):
                unscored[name] = found
            else:
                scores.append(found)
                fold.append(number)
    if failures or (unscored and not scores):
        _require_some(fold, len(folds), failures | unscored)
    if len(scores) < 2:
        raise ConfigError(
            f"got {len(scores)} predicted slides with label {label!r}; expected at least 2, so "
            "that no slide is scored by a rule that was chosen on it"
        )
    numbers = np.array(fold)
    names = [str(collection.path.parent.name) for collection in folds]
    if len(folds) == 1:
        numbers = np.arange(len(scores)) % min(parts, len(scores))
        names = [f"part {number}" for number in range(int(numbers.max()) + 1)]
    report = choose(rules, np.stack(scores, axis=1), numbers, names)
    report = replace(report, unscored=tuple(unscored), failures=failures)
    if out is not None:
        write_rule(Path(out), report.rule, {**report.to_json(), "label": label})
    return report


def _require_some(fold: Sequence[int], folds: int, failures: Mapping[str, str]) -> None:
    """Raise what failed where too little is left to choose by."""
    if len(fold) < 2 or (folds > 1 and len(set(fold)) < 2):
        raise BatchError(failures, done=len(fold))


def choose(
    rules: Sequence[Rule], scores: NDArray[np.float64], fold: NDArray[np.int64], names: list[str]
) -> SearchReport:
    """Choose by scores ``(rules, slides)``; ``fold`` is each slide's fold, by index of name."""
    best = int(scores.mean(axis=1).argmax())
    present = np.unique(fold)
    if len(present) < 2:
        raise ConfigError("got slides of one fold; expected at least two folds")
    choices, cross = [], np.zeros(scores.shape[1])
    for number in present:
        here = fold == number
        chosen = int(scores[:, ~here].mean(axis=1).argmax())
        cross[here] = scores[chosen, here]
        score = float(scores[chosen, here].mean())
        choices.append(FoldChoice(names[int(number)], rules[chosen], score))
    return SearchReport(
        rule=rules[best],
        in_fold=float(scores[best].mean()),
        cross_fold=float(cross.mean()),
        folds=tuple(choices),
        rules=len(rules),
        slides=scores.shape[1],
    )


def slide_scores(
    prediction: SlideStore, truth: SlideStore, rules: Sequence[Rule], *, label: str
) -> NDArray[np.float64]:
    """Dice of one slide for each rule, averaged over classes, in one pass over the slide.

    Both empty is 1. Only thresholds and ``min_area`` of a rule are looked at.
    """
    parts = [_scores(*pair, rules, label) for pair in compared(prediction, truth, label)]
    scores: NDArray[np.float64] = np.mean([one for one in parts if one is not None], axis=0)
    return scores


def _scores(
    prediction: SlideStore, truth: SlideStore, rules: Sequence[Rule], label: str
) -> NDArray[np.float64] | None:
    """Dice of classes of which a pixel has one; None for one that nobody annotated here."""
    image, true = prediction.probabilities, truth.label(label)
    classes = image.classes
    require_same_slide(prediction, truth)
    require_same_classes(truth.name, classes, true.classes, label)
    px_areas = [rule.px_area(prediction.pyramid.mpp, name=prediction.name) for rule in rules]
    images = ImageCounts(len(classes) + 1)
    levels = [rule.thresholds(exclusive=classes.is_exclusive) for rule in rules]
    per_object = {level for level, rule in zip(levels, rules, strict=True) if rule.per == "object"}
    highs = sorted({high for high, _ in per_object})
    objects = {low: ObjectCounts(low, highs) for _, low in sorted(per_object)}
    for strip in paired_strips(
        argmax_strips(image), classes, true, height=image.pyramid.extent.height
    ):
        images.add(strip)
        for counts in objects.values():
            counts.add(strip)
    if isinstance(truth, ClassView) and not images.scored:
        return None
    for counts in objects.values():
        counts.close(len(classes) + 1)
    scores = []
    for rule, level, px_area in zip(rules, levels, px_areas, strict=True):
        where = images if rule.per == "image" else objects[level[1]]
        tp, found = where.of(level, rule, px_area)
        total = found + images.true
        dice = np.where(total > 0, 2 * tp / np.maximum(total, 1), 1.0)
        scores.append(float(dice[1:].mean()))
    return np.array(scores)
