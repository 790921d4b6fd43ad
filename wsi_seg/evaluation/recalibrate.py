"""Owns writing calibrated predictions, with a calibration that was fitted on others."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.choices import Method
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.evaluation.calibration import Reliability
from wsi_seg.evaluation.softmax import softened
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.progress import Progress
from wsi_seg.store import (
    Layout,
    Predictions,
    SlideStore,
    create_collection,
    open_image,
    remove_if_empty,
    store_digest,
    update_names,
    writing,
)
from wsi_seg.store.names import LABELS, PREDICTION_LABEL

# Rows calibrated at a time, because powers need eight bytes per value.
_ROWS = 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated values of probabilities.

    Parameters
    ----------
    method
        See `Reliability.table`.
    tables
        Calibrated value of each value, ``(256,)`` uint8, by class name.
    softmax
        Temperature of exclusive classes, used instead of the tables; None for other classes.
    """

    method: Method
    tables: Mapping[str, NDArray[np.uint8]]
    softmax: float | None = None

    @classmethod
    def fit(
        cls, found: Mapping[str, Reliability], method: Method, *, softmax: float | None = None
    ) -> "Calibration":
        """Fit each class independently; exclusive classes take the temperature ``softmax``.

        Raises
        ------
        ConfigError
            If the method is not ``temperature`` for exclusive classes.
        """
        if softmax is not None and method != "temperature":
            raise ConfigError(
                f"got method {method} for exclusive classes, whose probabilities and that of the "
                "background must sum to 1; expected method temperature"
            )
        return cls(method, {name: one.table(method) for name, one in found.items()}, softmax)

    def note(self, store: SlideStore) -> dict[str, object]:
        """Return JSON values that identify the calibration and the uncalibrated prediction."""
        tables = {n: hashlib.sha256(one.tobytes()).hexdigest() for n, one in self.tables.items()}
        if self.softmax is not None:
            tables = {"softmax": hashlib.sha256(repr(self.softmax).encode()).hexdigest()}
        return {
            "calibration": self.method,
            "calibration_tables": tables,
            "calibrated_from": store_digest(store.path),
        }


@dataclass(frozen=True, slots=True)
class WriteReport(SlidesReport[str]):
    """Report of calibrated slides."""

    out: Path

    def lines(self) -> list[str]:
        """Report as lines of text."""
        return [f"{counted(len(self.slides), 'calibrated slide')} in {self.out}"]


def write_calibrated(
    predictions: Predictions,
    calibration: Calibration,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress,
) -> WriteReport:
    """Write a collection of calibrated probabilities and their label maps.

    Slides are written atomically. Slides in ``out`` with the same calibration of the same
    prediction are kept.

    Parameters
    ----------
    predictions
        Predictions to calibrate.
    calibration
        Fitted calibration.
    out
        Collection to create, to resume or to add to.
    overwrite
        Whether to replace slides that were calibrated before.
    progress
        Advanced by slides.

    Returns
    -------
    WriteReport
        `WriteReport.require_whole` raises if a prediction has no probabilities or a class without
        calibration, or if a slide in ``out`` has another calibration, or none, and may not be
        replaced.

    Raises
    ------
    OutputError
        If ``out`` cannot be written.
    """
    create_collection(out)

    def work(name: str) -> None:
        exists = (out / name).exists()
        if exists:
            _require_same(out / name, calibration.note(predictions[name]), overwrite=overwrite)
        if overwrite or not exists:
            _write(predictions[name], calibration, out)

    batch = run_each(predictions.names(), work, title="calibrate", progress=progress)
    remove_if_empty(out)
    update_names(out)
    return WriteReport(tuple(batch.results), out, failures=batch.failures)


def _require_same(result: Path, expected: Mapping[str, object], *, overwrite: bool) -> None:
    """Require that an existing result has the expected calibration, unless it may be replaced."""
    stored = open_image(result).attributes
    if "calibration" not in stored:
        raise StoreError(
            f"{result} exists and is not a calibrated prediction, so it is not replaced; choose "
            "another --out"
        )
    method = stored["calibration"], expected["calibration"]
    differences = {
        "calibration": "the method was {} and is now {}".format(*method),
        "calibration_tables": "other values were fitted",
        "calibrated_from": "another prediction was calibrated",
    }
    changed = [text for key, text in differences.items() if stored.get(key) != expected[key]]
    if changed and not overwrite:
        raise StoreError(
            f"{result} has another calibration: {'; '.join(changed)}; choose another --out, or "
            "replace it with --overwrite"
        )


def _write(store: SlideStore, calibration: Calibration, out: Path) -> None:
    image = store.probabilities
    classes = image.classes
    if classes.is_exclusive != (calibration.softmax is not None):
        raise StoreError(
            f"slide {store.name!r} has classes of mode {classes.mode}, but the calibration was "
            "fitted for another mode; expected a prediction of the model that it was fitted on"
        )
    missing = [name for name in classes.names if name not in calibration.tables]
    if missing:
        raise StoreError(
            f"slide {store.name!r} has class {missing[0]!r}, which was not calibrated; expected "
            f"one of {', '.join(calibration.tables)}"
        )
    tables = [calibration.tables[name] for name in classes.names]
    notes = dict(store.attributes) | calibration.note(store) | {"saved": "both"}
    layout = Layout.like(image, channels=len(classes))
    ids = Layout.like(image, channels=classes.planes)
    about = {"kind": "label", "classes": classes.to_json()}
    with writing(out / store.name, layout, notes) as draft:
        label = draft.inside(f"{LABELS}/{PREDICTION_LABEL}", ids, about)
        for strip in draft.strips():
            values = image.read(strip, cached=False)
            values = _calibrated(values, tables, calibration.softmax)
            draft.write(strip, values)
            label.write(strip, label_map(values, classes.mode))


def _calibrated(
    values: NDArray[np.uint8], tables: Sequence[NDArray[np.uint8]], softmax: float | None
) -> NDArray[np.uint8]:
    """Calibrate values ``(H, W, C)`` uint8 in place, a few rows at a time."""
    for row in range(0, len(values), _ROWS):
        rows = values[row : row + _ROWS]
        if softmax is not None:
            rows[...] = softened(rows, softmax)
            continue
        for channel, table in enumerate(tables):
            rows[..., channel] = table[rows[..., channel]]
    return values
