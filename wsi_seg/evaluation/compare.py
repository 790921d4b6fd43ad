"""Owns scoring predictions against the truth, in strips: memory depends on a slide's width."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import Batch, run_each
from wsi_seg.classes import IGNORE
from wsi_seg.counts import counted
from wsi_seg.errors import BatchError, StoreError
from wsi_seg.evaluation.boundary import Outlines
from wsi_seg.evaluation.calibration import pooled, slide_reliability
from wsi_seg.evaluation.kept import ScoredSlide
from wsi_seg.evaluation.maps import ALL_MAPS, write_maps
from wsi_seg.evaluation.matching import Matcher
from wsi_seg.evaluation.pairing import (
    PredictionTruthStrip,
    all_ignored,
    compared,
    lack_of_truth,
    paired_strips,
    require_same_classes,
    require_same_slide,
)
from wsi_seg.evaluation.scores import Counts, Measures, Scores, SlideScore
from wsi_seg.evaluation.table import SCORES, write_scores
from wsi_seg.evaluation.tiles import tile_dices
from wsi_seg.files.atomic import require_permission
from wsi_seg.masks.inside import Inside
from wsi_seg.postprocess.label_map import predicted_label
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import label_strips
from wsi_seg.postprocess.write import write_decision
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import Collection, Predictions, SlideStore, store_digest
from wsi_seg.store.names import DECISION_LABEL, LABELS, PREDICTION_LABEL

_TOLERANCE_UM = 2.0  # about the agreement of outlines by different annotators
_TILE_PX = 512  # for predictions that do not record their tile size
_ROWS = 64  # rows counted at a time


def usual_measures(predictions: Predictions, *, tolerance_um: float = _TOLERANCE_UM) -> Measures:
    """Return all measures, with tiles of the size that the model was run with."""
    names = predictions.names()
    tile_px = predictions[names[0]].prediction.tile_px if names else None
    return Measures(
        objects=True,
        tolerance_um=tolerance_um,
        calibration=True,
        tile_px=tile_px or _TILE_PX,
    )


def evaluate(
    predictions: Predictions,
    slides: Collection,
    *,
    label: str = "annotations",
    rule: Rule | None = None,
    measures: Measures | None = None,
    maps: bool = False,
    out: Path | str | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> Scores:
    """Score predictions against a label of the slides: pixels, tiles, objects and outlines.

    Slides without the label, or with no pixel to score, are skipped and listed in the result, and
    so are those that cannot be compared; `Scores.require_whole` raises an error for these. Several
    processes may score one collection together; see `share.evaluate_share`.

    The truth is sampled at the pixel centres of the prediction's level, from its own level of that
    size or the next finer one. Pixels labelled 255 (ignore) do not count.

    Parameters
    ----------
    predictions
        Predictions of inference.
    slides
        Stores of the slides, with the truth.
    label
        Name of the ground-truth label.
    rule
        Rule of the decision to score, which is stored as the label ``decision``; None scores the
        label map of inference.
    measures
        What to measure besides pixels; None measures everything, see `usual_measures`.
    maps
        Whether to add maps of errors, energy and uncertainty to each prediction as labels.
    out
        Folder for ``scores.json`` and ``slides.csv``; None writes no files.
    progress
        Advanced by megapixels.

    Returns
    -------
    Scores
        Scores of each slide and class, from which those of all slides are computed.

    Raises
    ------
    StoreError
        If nothing can be compared.
    BatchError
        If no slide can be scored.

    Examples
    --------
    >>> scores = evaluate(predictions, slides, rule=Rule(0.7, 0.4))  # doctest: +SKIP
    >>> scores.pooled("gland").dice  # doctest: +SKIP
    0.93
    """
    predictions.require_names()
    measures = usual_measures(predictions) if measures is None else measures
    scoring = Scoring(predictions, slides, label, rule, measures, maps, progress)
    return scoring.run(None if out is None else Path(out))


@dataclass(frozen=True, slots=True)
class Scoring:
    """Inputs and options of scoring, which works slide by slide; see `evaluate`.

    Examples
    --------
    >>> scoring = Scoring(predictions, slides, "annotations", None, Measures())  # doctest: +SKIP
    >>> scoring.joined(Batch({"a": scoring.score("a")}, {})).pooled("gland")  # doctest: +SKIP
    Counts(tp=912, fp=31, fn=40)
    """

    predictions: Predictions
    slides: Collection
    label: str
    rule: Rule | None
    measures: Measures
    maps: bool = False
    progress: Progress = Silent()  # noqa: RUF009 (has no state)
    inside: Inside | None = None

    @property
    def found_label(self) -> str:
        """Name of the scored label of predictions."""
        return PREDICTION_LABEL if self.rule is None else DECISION_LABEL

    def run(self, out: Path | None = None) -> Scores:
        """Score all slides; see `evaluate`."""
        names = self.predictions.require_names()
        if out is not None:
            require_permission(out / SCORES)
        batch = run_each(names, self.score, title="evaluate", progress=self.progress)
        found = self.joined(batch)
        if out is not None:
            write_scores(out, found)
        return found

    def score(self, name: str) -> ScoredSlide:
        """Score one slide."""
        if name not in self.slides:
            raise StoreError(f"{self.slides.path} has no slide {name!r}")
        prediction, truth = self.predictions[name], self.slides[name]
        if (lack := lack_of_truth(truth, self.label)) is not None:
            return ScoredSlide(name, lack=lack)
        if self.inside is not None:
            truth = self.inside.ignoring(truth)
        if self.rule is not None:
            write_decision(prediction, self.rule)
        found = evaluate_slide(
            prediction,
            truth,
            label=self.label,
            found_label=self.found_label,
            measures=self.measures,
            progress=self.progress,
        )
        if not found:
            return ScoredSlide(name, lack=all_ignored(truth, self.label))
        calibrated = self.measures.calibration and prediction.saved != "labels"
        reliability = slide_reliability(prediction, truth, label=self.label) if calibrated else {}
        maps: tuple[str, ...] = ()
        if self.maps:
            maps = write_maps(prediction, truth, label=self.label, found_label=self.found_label)
        return ScoredSlide(name, tuple(found), reliability, maps)

    def digests(self, name: str) -> list[str]:
        """Return digests of the stores that a slide's scores depend on, and of written labels."""
        labels = [PREDICTION_LABEL, self.found_label, *(ALL_MAPS if self.maps else ())]
        paths = [self.predictions.path / name, self.slides.path / name]
        paths += [paths[0] / LABELS / one for one in labels] + [paths[1] / LABELS / self.label]
        return [store_digest(path) for path in paths]

    def options(self) -> dict[str, object]:
        """Serialize everything except the pixel arrays to JSON values."""
        return {
            "truth": str(self.slides.path),
            "label": self.label,
            "rule": None if self.rule is None else asdict(self.rule),
            "measures": asdict(self.measures),
            "maps": self.maps,
            "inside": None if self.inside is None else self.inside.description,
        }

    def joined(self, batch: Batch[ScoredSlide], *, elsewhere: int = 0) -> Scores:
        """Join the scores of slides; ``elsewhere`` counts slides of other processes.

        Raises
        ------
        BatchError
            If no slide was scored, here or elsewhere.
        """
        lacking = {name: one.lack for name, one in batch.results.items() if one.lack is not None}
        scored = {name: one for name, one in batch.results.items() if one.lack is None}
        scores = [score for one in scored.values() for score in one.scores]
        if not scores and not elsewhere:
            raise BatchError(batch.failures | lacking, done=0)
        calibrated = [one.reliability for one in scored.values() if one.reliability]
        count = len(calibrated) if self.measures.calibration else len(scored)
        return Scores(
            tuple(scores),
            self.measures.tolerance_um,
            pooled(calibrated) if calibrated else None,
            tuple(lacking),
            batch.failures,
            _warnings(self.predictions, scored, count),
            {name: one.maps for name, one in scored.items() if one.maps},
            elsewhere,
            None if self.inside is None else self.inside.description,
        )


def _warnings(predictions: Predictions, scored: Iterable[str], calibrated: int) -> tuple[str, ...]:
    """List warnings about unreadable tiles, and about calibration that was not measured."""
    names = list(scored)
    warnings = [text for name in names if (text := predictions[name].warning) is not None]
    if calibrated < len(names):
        warnings.append(
            f"calibration not measured on {len(names) - calibrated} of "
            f"{counted(len(names), 'slide')}: only class ids were saved"
        )
    return tuple(warnings)


def evaluate_slide(
    prediction: SlideStore,
    truth: SlideStore,
    *,
    label: str,
    found_label: str = PREDICTION_LABEL,
    measures: Measures = Measures(),  # noqa: B008 (frozen)
    progress: Progress,
) -> list[SlideScore]:
    """Score every class on one slide, but those whose pixels are all ignored; see `evaluate`."""
    return [
        score
        for found, true in compared(prediction, truth, label)
        for score in _scores(
            found,
            true,
            label=label,
            found_label=found_label,
            measures=measures,
            progress=progress,
        )
    ]


def _scores(
    prediction: SlideStore,
    truth: SlideStore,
    *,
    label: str,
    found_label: str,
    measures: Measures,
    progress: Progress,
) -> list[SlideScore]:
    """Score classes that do not overlap."""
    found, true = predicted_label(prediction, found_label), truth.label(label)
    found_classes = found.classes
    require_same_slide(prediction, truth)
    require_same_classes(truth.name, found_classes, true.classes, label)
    size = len(found_classes) + 1
    confusion = np.zeros((size, size), dtype=np.int64)
    extent = found.pyramid.extent
    matcher = Matcher() if measures.objects else None
    outlines = Outlines(found_classes) if measures.tolerance_um is not None else None
    progress.start(f"evaluate {truth.name}", extent.area / 1e6, "Mpx")
    for strip in paired_strips(label_strips(found), found_classes, true, height=extent.height):
        confusion += _confusion(strip, size)
        if matcher is not None:
            matcher.add(strip)
        if outlines is not None:
            outlines.add(strip)
        progress.advance(strip.found.size / 1e6)
    progress.finish()
    if not confusion.any():
        return []  # all pixels are ignored, as those of a class that is not annotated
    objects = {} if matcher is None else matcher.counts(found_classes)
    distances = {} if outlines is None else outlines.distances()
    tiles = {} if measures.tile_px is None else tile_dices(found, true, measures.tile_px)
    scores = []
    for entry in found_classes:
        tp = int(confusion[entry.id, entry.id])
        fp = int(confusion[entry.id].sum()) - tp
        fn = int(confusion[:, entry.id].sum()) - tp
        scores.append(
            SlideScore(
                truth.name,
                entry.name,
                Counts(tp, fp, fn),
                objects.get(entry.name),
                distances.get(entry.name),
                None if measures.tile_px is None else tiles[entry.name],
                found.pyramid.mpp,
            )
        )
    return scores


def _confusion(strip: PredictionTruthStrip, size: int) -> NDArray[np.int64]:
    """Return the confusion matrix ``(predicted, true)`` of a strip, ``(size, size)`` int64."""
    total = np.zeros(size * size, dtype=np.int64)
    for row in range(0, len(strip.found), _ROWS):  # needs eight bytes per pixel
        rows = slice(row, row + _ROWS)
        found, true = strip.found[rows].astype(np.int64), strip.true[rows]
        both = (found * size + true)[true != IGNORE]
        total += np.bincount(both, minlength=size * size)
    return total.reshape(size, size)
