"""Owns the grid search for a rule on out-of-fold predictions, with cross-validated scores.

The score of the best rule is optimistic, because the rule was selected by it. So each fold is also
scored by the rule that is best on the other folds; the mean of these scores estimates the
performance on new slides.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import require_none, run_each
from wsi_seg.choices import Scope
from wsi_seg.counts import counted
from wsi_seg.errors import BatchError, ConfigError, StoreError
from wsi_seg.evaluation.pairing import (
    all_ignored,
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
from wsi_seg.reading.slices import case_of
from wsi_seg.store import Collection, Predictions, SlideStore

# Default thresholds; 0 keeps the most probable of exclusive classes, as inference does.
_HIGHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_DOUBTS = (0.0, *_HIGHS)
_BASE = Rule()


def usual_highs(folds: Sequence[Predictions]) -> tuple[float, ...]:
    """Return the default high thresholds."""
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
    """Make a grid of rules with ``low <= high``; without lows, both thresholds are equal.

    Parameters
    ----------
    highs, lows, min_areas, per
        Values to combine; see `Rule`.
    base
        Common parameters of all rules, such as ``unit`` and ``min_object_area``.

    Raises
    ------
    ConfigError
        If the grid is empty.
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
    """The rule that is best on all other folds, and its score on this fold."""

    fold: str
    rule: Rule
    score: float


@dataclass(frozen=True, slots=True)
class SearchReport:
    """Report of a search.

    Parameters
    ----------
    rule
        Best rule on all slides.
    in_fold
        Its score on the slides that it was selected by.
    cross_fold
        Mean score over slides, each by the rule that the other folds selected.
    folds
        Rule and score of each fold.
    rules, slides
        Number of rules and of slides.
    unscored
        Names of slides without the ground-truth label.
    failures
        Errors of slides that could not be scored, by name.
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
        """Raise a `BatchError` if some slides could not be scored."""
        require_none(self.failures, done=self.slides)

    def lines(self) -> list[str]:
        """Report as lines of text."""
        slides = counted(self.slides, "slide")
        return [
            f"{counted(self.rules, 'rule')} on {slides} in {len(self.folds)} folds",
            f"best: {self.rule.describe()}",
            f"Dice {self.in_fold:.4f} on the slides it was selected by (optimistic)",
            f"Dice {self.cross_fold:.4f} cross-validated: rules selected by the other folds",
            *unscored_lines(self.unscored),
        ]

    def to_json(self) -> dict[str, object]:
        """Report as JSON values."""
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

    Slides without the label, or with no pixel to score, are skipped and listed in the result, and
    so are those that cannot be compared; `SearchReport.require_whole` raises an error for these.

    Parameters
    ----------
    folds
        Predictions of each fold's held-out slides. The slides of a single collection are split into
        ``parts`` folds, with all slices of a volume in one.
    slides
        Stores of the slides, with the truth.
    rules
        Rules to score, see `grid`; ties take the first. None takes thresholds from 0.3 to 0.8, and
        0 for exclusive classes.
    label
        Name of the ground-truth label.
    parts
        Number of folds of a single collection.
    out
        File for the best rule and the report; None writes no file.
    progress
        Advanced by slides.

    Returns
    -------
    SearchReport
        Best rule, its score, and the cross-validated score.

    Raises
    ------
    ConfigError
        If there are fewer than two slides with truth, or fewer than two folds.
    BatchError
        If slides cannot be compared, and too few remain.

    Examples
    --------
    >>> predictions = open_predictions("run/oof.zarr")  # doctest: +SKIP
    >>> rules = grid([0.6, 0.75], [0.3], [0, 500], base=Rule(max_hole_area=50))  # doctest: +SKIP
    >>> search([predictions], slides, rules, out="run/rule.json").rule  # doctest: +SKIP
    """
    rules = rules or grid(usual_highs(folds), (), (0.0,))
    fold: list[int] = []
    cases: list[str] = []
    scores: list[NDArray[np.float64]] = []
    failures: dict[str, str] = {}
    unscored: dict[str, str] = {}
    for number, predictions in enumerate(folds):

        def work(name: str, found: Predictions = predictions) -> NDArray[np.float64] | str:
            if name not in slides:
                raise StoreError(f"{slides.path} has no slide {name!r}")
            return _scores_or_lack(found[name], slides[name], rules, label)

        batch = run_each(predictions.names(), work, title="search", progress=progress)
        failures |= batch.failures
        for name, found in batch.results.items():
            if isinstance(found, str):
                unscored[name] = found
            else:
                scores.append(found)
                fold.append(number)
                cases.append(case_of(name))
    if failures or (unscored and not scores):
        _require_some(fold, len(folds), failures | unscored)
    if len(scores) < 2:
        raise ConfigError(
            f"got {counted(len(scores), 'predicted slide')} with label {label!r}; expected at "
            "least 2, so that no slide is scored by a rule that was selected on it"
        )
    numbers = np.array(fold)
    names = [str(collection.path.parent.name) for collection in folds]
    if len(folds) == 1:
        of_case = np.unique(cases, return_inverse=True)[1]
        numbers = of_case % min(parts, len(set(cases)))
        names = [f"part {number}" for number in range(int(numbers.max()) + 1)]
    report = choose(rules, np.stack(scores, axis=1), numbers, names)
    report = replace(report, unscored=tuple(unscored), failures=failures)
    if out is not None:
        write_rule(Path(out), report.rule, {**report.to_json(), "label": label})
    return report


def _require_some(fold: Sequence[int], folds: int, failures: Mapping[str, str]) -> None:
    """Raise the failures if too few slides remain to select a rule."""
    if len(fold) < 2 or (folds > 1 and len(set(fold)) < 2):
        raise BatchError(failures, done=len(fold))


def choose(
    rules: Sequence[Rule], scores: NDArray[np.float64], fold: NDArray[np.int64], names: list[str]
) -> SearchReport:
    """Select rules by scores ``(rules, slides)`` float64, given the fold index of each slide."""
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


def _scores_or_lack(
    prediction: SlideStore, truth: SlideStore, rules: Sequence[Rule], label: str
) -> NDArray[np.float64] | str:
    """Return the scores of a slide, or why it has none."""
    lack = lack_of_truth(truth, label)
    if lack is not None:
        return lack
    found = slide_scores(prediction, truth, rules, label=label)
    return all_ignored(truth, label) if found is None else found


def slide_scores(
    prediction: SlideStore, truth: SlideStore, rules: Sequence[Rule], *, label: str
) -> NDArray[np.float64] | None:
    """Compute the Dice ``(rules,)`` of one slide, averaged over classes, in a single pass.

    The Dice of empty masks is 1; the result is None if all pixels are ignored. Only the thresholds
    and ``min_area`` of rules are applied.
    """
    parts = [_scores(*pair, rules, label) for pair in compared(prediction, truth, label)]
    known = [one for one in parts if one is not None]
    return np.array(np.mean(known, axis=0)) if known else None


def _scores(
    prediction: SlideStore, truth: SlideStore, rules: Sequence[Rule], label: str
) -> NDArray[np.float64] | None:
    """Compute the Dice of classes that do not overlap; None if all pixels are ignored."""
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
    if not images.scored:
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
