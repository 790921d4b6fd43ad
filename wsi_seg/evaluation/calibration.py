"""Owns the calibration of probabilities: reliability, and tables that calibrate them.

A prediction has 256 values, so the counts of each value with and without the class are sufficient.
They are accumulated over strips.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.choices import Method
from wsi_seg.classes import IGNORE
from wsi_seg.evaluation.pairing import compared, require_same_classes, require_same_slide
from wsi_seg.evaluation.softmax import best_temperature, softmax_losses
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Collection, Predictions, SlideStore

_VALUES = 256
_BINS = 10
_STRIP_PX = 512

_ROWS = 64  # rows counted at a time

# Range of temperatures, far beyond those of networks.
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Pixel counts of one class by predicted probability.

    Parameters
    ----------
    counts
        ``(256, 2)`` int64: pixels of each value (value / 255), without and with the class.
    """

    counts: NDArray[np.int64]

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.counts + other.counts)

    def curve(self) -> tuple[list[float], list[float]]:
        """Return the mean probability and the fraction of true pixels of up to ten non-empty bins.

        Equal to `sklearn.calibration.calibration_curve`.
        """
        predicted, true, px = self._binned()
        full = px > 0
        return (predicted[full] / px[full]).tolist(), (true[full] / px[full]).tolist()

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al., 2017): mean over pixels of the bins' gaps."""
        predicted, true, px = self._binned()
        return float(np.abs(predicted - true).sum() / max(1, px.sum()))

    @property
    def loss(self) -> float:
        """Mean cross-entropy over pixels; see `value_logits`."""
        return self._cross_entropy(value_logits()) / max(1, int(self.counts.sum()))

    def _cross_entropy(self, logits: NDArray[np.float64]) -> float:
        """Sum the cross-entropy over pixels, given the logit of each value."""
        # log(1 + exp(z)) without the class, log(1 + exp(-z)) with it.
        each = np.stack([np.logaddexp(0, logits), np.logaddexp(0, -logits)], axis=1)
        return float((self.counts * each).sum())

    def _binned(self) -> tuple[NDArray[np.float64], ...]:
        value = np.arange(_VALUES) / 255
        group = np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], value)
        px = self.counts.sum(axis=1)
        columns = (px * value, self.counts[:, 1], px)
        return tuple(np.bincount(group, weights=c, minlength=_BINS) for c in columns)

    def to_json(self) -> dict[str, object]:
        """Return errors, temperature and curve as JSON values."""
        predicted, true = self.curve()
        return {
            "ece": self.ece,
            "temperature": self.temperature(),
            "reliability": {"predicted": predicted, "true share": true},
        }

    def temperature(self) -> float:
        """Fit the divisor of logits that maximizes the likelihood of the truth; 1 without pixels.

        Temperature scaling of Guo et al. (2017), *On calibration of modern neural networks*.
        """
        if not self.counts.sum():
            return 1.0
        logits = value_logits()

        def loss(log_t: float) -> float:
            return self._cross_entropy(logits / np.exp(log_t))

        bounds = float(np.log(_COLDEST)), float(np.log(_HOTTEST))
        return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))

    def table(self, method: Method) -> NDArray[np.uint8]:
        """Return the calibrated value of each value, ``(256,)`` uint8, non-decreasing.

        Parameters
        ----------
        method
            ``temperature`` only corrects the confidence; ``quantile`` maps each value to its
            fraction of true pixels by isotonic regression, and needs more ground truth.
        """
        if method == "temperature":
            calibrated = 1 / (1 + np.exp(-value_logits() / self.temperature()))
            return _values(calibrated)
        px = self.counts.sum(axis=1)
        value = np.arange(_VALUES)
        if not px.any():
            return value.astype(np.uint8)
        fraction = self.counts[:, 1] / np.maximum(px, 1)
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        fitted.fit(value[px > 0], fraction[px > 0], sample_weight=px[px > 0])
        return _values(fitted.predict(value))


def _values(probability: NDArray[np.float64]) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = np.rint(probability * 255).astype(np.uint8)
    return values


def value_logits() -> NDArray[np.float64]:
    """Return the logit of each value ``(256,)`` float64; 0 and 255 count as half a step inside."""
    p = np.clip(np.arange(_VALUES) / 255, 0.5 / 255, 254.5 / 255)
    logits: NDArray[np.float64] = np.log(p / (1 - p))
    return logits


@dataclass(frozen=True, slots=True)
class CalibrationReport(SlidesReport[str]):
    """Reliability of each class, pooled over slides.

    ``softmax`` is the common temperature of exclusive classes; None for other classes.
    """

    classes: Mapping[str, Reliability]
    softmax: float | None = None

    def lines(self) -> list[str]:
        """Report as lines of text."""
        note = "(above 1: the model is overconfident)"
        if self.softmax is not None:
            lines = [f"{name}: calibration error {c.ece:.4f}" for name, c in self.classes.items()]
            return [*lines, f"softmax: temperature {self.softmax:.3f} {note}"]
        return [
            f"{name}: calibration error {one.ece:.4f}, temperature {one.temperature():.3f} {note}"
            for name, one in self.classes.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Report as JSON values."""
        classes = {name: one.to_json() for name, one in self.classes.items()}
        more = {} if self.softmax is None else {"softmax": {"temperature": self.softmax}}
        return {"classes": classes, "failures": dict(self.failures), **more}


def reliability(
    predictions: Predictions, slides: Collection, *, label: str, progress: Progress
) -> CalibrationReport:
    """Count the values of predictions with and without each class, over all slides.

    Returns
    -------
    CalibrationReport
        `CalibrationReport.require_whole` raises if a slide is missing, cannot be compared, or has
        no probabilities.

    Raises
    ------
    StoreError
        If there are no predictions.
    """
    names = predictions.require_names()
    losses: list[NDArray[np.float64]] = []

    def work(name: str) -> dict[str, Reliability]:
        found = slide_reliability(predictions[name], slides[name], label=label)
        if predictions[name].image.classes.is_exclusive:
            losses.append(softmax_losses(predictions[name], slides[name], label=label))
        return found

    batch = run_each(names, work, title="compare", progress=progress)
    return CalibrationReport(
        tuple(batch.results),
        pooled(batch.results.values()),
        best_temperature(np.sum(losses, axis=0)) if losses else None,
        failures=batch.failures,
    )


def pooled(slides: Iterable[Mapping[str, Reliability]]) -> dict[str, Reliability]:
    """Sum the counts of each class over slides."""
    sums: dict[str, Reliability] = {}
    for slide in slides:
        for name, found in slide.items():
            sums[name] = sums[name] + found if name in sums else found
    return sums


def slide_reliability(
    prediction: SlideStore, truth: SlideStore, *, label: str
) -> dict[str, Reliability]:
    """Count the values of one slide; see `reliability`."""
    counts: dict[str, Reliability] = {}
    for found, true in compared(prediction, truth, label):
        of_pair = _counted(found, true, label)
        # Without annotations of a class, all its pixels are ignored.
        counts |= of_pair if any(one.counts.any() for one in of_pair.values()) else {}
    return counts


def _counted(prediction: SlideStore, truth: SlideStore, label: str) -> dict[str, Reliability]:
    """Count the values of classes that do not overlap."""
    found, true = prediction.probabilities, truth.label(label)
    classes, true_classes = found.classes, true.classes
    require_same_slide(prediction, truth)
    require_same_classes(truth.name, classes, true_classes, label)
    recode = classes.recoding(true_classes)
    counts = {entry.name: np.zeros((_VALUES, 2), dtype=np.int64) for entry in classes}
    extent = found.pyramid.extent
    for region in extent.strips(_STRIP_PX):
        values = found.read(region, cached=False)
        ids = read_label(true, extent, region.y, 0, height=region.height, width=region.width)
        ids = recode[ids]
        for channel, entry in enumerate(classes):
            for row in range(0, region.height, _ROWS):  # pairs need eight bytes per pixel
                rows = slice(row, row + _ROWS)
                pairs = values[rows, :, channel].astype(np.int64) * 2 + (ids[rows] == entry.id)
                pairs = pairs[ids[rows] != IGNORE]
                counts[entry.name] += np.bincount(pairs, minlength=2 * _VALUES).reshape(_VALUES, 2)
    return {name: Reliability(count) for name, count in counts.items()}
