"""Owns Dice and IoU: per slide, their spread over slides, and pooled over all px.

Counts are whole numbers summed over bands of rows, so memory depends on a slide's width only and
no mean is ever taken of means.
"""

import statistics
from dataclasses import dataclass

import numpy as np

from wsi_seg.errors import BatchError, StoreError, WsiSegError
from wsi_seg.evaluate.truth import paired, require_same_classes, require_same_slide
from wsi_seg.postprocess.strips import labelled
from wsi_seg.postprocess.write import classes_of
from wsi_seg.progress import Progress
from wsi_seg.store import Collection, SlideStore

PREDICTION_LABEL = "prediction"


@dataclass(frozen=True, slots=True)
class Counts:
    """Px of one class: found and true, found but false, true but missed."""

    tp: int
    fp: int
    fn: int

    @property
    def dice(self) -> float:
        """``2 tp / (2 tp + fp + fn)``; 1 where neither prediction nor truth has a px."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def iou(self) -> float:
        """``tp / (tp + fp + fn)``; 1 where neither prediction nor truth has a px."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


@dataclass(frozen=True, slots=True)
class SlideScore:
    """Counts of one class on one slide."""

    slide: str
    class_name: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a prediction collection against a truth collection."""

    slides: tuple[SlideScore, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in table order."""
        return tuple(dict.fromkeys(score.class_name for score in self.slides))

    def pooled(self, class_name: str) -> Counts:
        """Sum the counts of one class over all slides."""
        total = Counts(0, 0, 0)
        for score in self.slides:
            if score.class_name == class_name:
                total += score.counts
        return total

    def slide_dice(self, class_name: str) -> tuple[float, float]:
        """Mean and standard deviation over slides of the per-slide Dice of one class."""
        values = [s.counts.dice for s in self.slides if s.class_name == class_name]
        return statistics.fmean(values), statistics.pstdev(values)

    @property
    def mean_slide_dice(self) -> float:
        """Per-slide Dice, averaged over slides and classes: what training selects by."""
        return statistics.fmean(score.counts.dice for score in self.slides)

    def lines(self) -> list[str]:
        """One sentence per class for people."""
        lines = []
        for name in self.class_names:
            pooled = self.pooled(name)
            mean, spread = self.slide_dice(name)
            lines.append(
                f"{name}: Dice {mean:.4f} ± {spread:.4f} per slide, {pooled.dice:.4f} pooled; "
                f"IoU {pooled.iou:.4f} pooled"
            )
        return lines

    def to_json(self) -> dict[str, object]:
        """All figures as plain JSON values."""
        return {
            "slides": [
                {
                    "slide": s.slide,
                    "class": s.class_name,
                    "dice": s.counts.dice,
                    "iou": s.counts.iou,
                    "tp": s.counts.tp,
                    "fp": s.counts.fp,
                    "fn": s.counts.fn,
                }
                for s in self.slides
            ],
            "classes": {
                name: {
                    "pooled_dice": self.pooled(name).dice,
                    "pooled_iou": self.pooled(name).iou,
                    "slide_dice_mean": self.slide_dice(name)[0],
                    "slide_dice_sd": self.slide_dice(name)[1],
                }
                for name in self.class_names
            },
            "mean_slide_dice": self.mean_slide_dice,
        }


def evaluate(
    prediction: Collection,
    truth: Collection,
    *,
    label: str,
    found_label: str = PREDICTION_LABEL,
    progress: Progress,
) -> Scores:
    """Compare the label maps of a prediction collection with a label of the slides.

    Truth is compared at the prediction's level: its own level there, or the nearest finer one,
    sampled at px centres. Px labelled 255 (ignore) do not count.

    Parameters
    ----------
    prediction
        Made by inference.
    truth
        Stores of the slides.
    label
        Name under ``labels/`` of the truth.
    found_label
        Name of the label that is judged: what inference wrote, or ``decision``.
    progress
        Advanced by megapixels.

    Raises
    ------
    StoreError
        If nothing can be compared.
    BatchError
        If some slides have no such label, or it has other classes.
    """
    names = prediction.names()
    if not names:
        raise StoreError(f"{prediction.path} holds no predictions; run `wsi-seg infer` first")
    scores: list[SlideScore] = []
    failures: dict[str, str] = {}
    for name in names:
        try:
            if name not in truth.names():
                raise StoreError(f"{truth.path} has no slide {name!r}")
            scores += evaluate_slide(
                prediction[name],
                truth[name],
                label=label,
                found_label=found_label,
                progress=progress,
            )
        except WsiSegError as error:
            failures[name] = str(error)
    if failures:
        raise BatchError(failures, done=len(names) - len(failures))
    return Scores(tuple(scores))


def evaluate_slide(
    prediction: SlideStore,
    truth: SlideStore,
    *,
    label: str,
    found_label: str = PREDICTION_LABEL,
    progress: Progress,
) -> list[SlideScore]:
    """Count px of every class on one slide; see `evaluate`."""
    found, true = prediction.label(found_label), truth.label(label)
    found_classes = classes_of(found)
    require_same_slide(prediction, truth)
    require_same_classes(truth.name, found_classes, classes_of(true), label)
    size = len(found_classes) + 1
    confusion = np.zeros((size, size), dtype=np.int64)
    extent = found.pyramid.extent
    progress.start(f"evaluate {truth.name}", extent.area / 1e6, "Mpx")
    for pair in paired(labelled(found), found_classes, true, height=extent.height):
        pairs = pair.found[pair.valid].astype(np.int64) * size + pair.true[pair.valid]
        confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)
        progress.advance(pair.found.size / 1e6)
    progress.finish()
    scores = []
    for entry in found_classes:
        tp = int(confusion[entry.id, entry.id])
        fp = int(confusion[entry.id].sum()) - tp
        fn = int(confusion[:, entry.id].sum()) - tp
        scores.append(SlideScore(truth.name, entry.name, Counts(tp, fp, fn)))
    return scores
