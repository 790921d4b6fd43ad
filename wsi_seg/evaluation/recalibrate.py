"""Owns writing a prediction whose probabilities were calibrated on another one with a truth."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.choices import Method
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

# Rows calibrated at a time: powers take eight bytes for each value.
_ROWS = 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a prediction's values are replaced by.

    Parameters
    ----------
    method
        See `Reliability.table`.
    tables
        ``(256,)`` uint8 of each class.
    softmax
        Temperature of exclusive classes, which replaces the tables; None of others.
    """

    method: Method
    tables: Mapping[str, NDArray[np.uint8]]
    softmax: float | None = None

    @classmethod
    def fit(
        cls, found: Mapping[str, Reliability], method: Method, *, softmax: float | None = None
    ) -> "Calibration":
        """Fit each class on its own; exclusive ones have the temperature of their softmax.

        Raises
        ------
        ConfigError
            If exclusive classes are to be calibrated one by one.
        """
        if softmax is not None and method != "temperature":
            raise ConfigError(
                f"got method {method} for exclusive classes, whose probabilities add up to 1 with "
                "the background's; expected method temperature"
            )
        return cls(method, {name: one.table(method) for name, one in found.items()}, softmax)

    def note(self, store: SlideStore) -> dict[str, object]:
        """Everything that decides the result of a prediction, as plain JSON values."""
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
    """Slides that are calibrated now."""

    out: Path

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        return [f"{len(self.slides)} calibrated slides in {self.out}"]


def write_calibrated(
    predictions: Predictions,
    calibration: Calibration,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress,
) -> WriteReport:
    """Write a collection with calibrated probabilities and the label maps that follow.

    Slides that are in ``out`` with the same calibration of the same prediction are kept; each is
    written whole or not at all.

    Parameters
    ----------
    predictions
        What is calibrated.
    calibration
        How.
    out
        Collection to make, continue or add to.
    overwrite
        Replace slides that were calibrated before.
    progress
        Advanced by slides.

    Returns
    -------
    WriteReport
        Its `WriteReport.require_whole` raises if a prediction has no probabilities, or a class
        that was not calibrated; or a slide in ``out`` was calibrated otherwise and is not to be
        replaced, or was not calibrated at all.

    Raises
    ------
    OutputError
        If ``out`` cannot be written.
    """
    create_collection(out)

    def work(name: str) -> None:
        there = (out / name).exists()
        if there:
            _require_same(out / name, calibration.note(predictions[name]), overwrite=overwrite)
        if overwrite or not there:
            _write(predictions[name], calibration, out)

    batch = run_each(predictions.names(), work, title="calibrate", progress=progress)
    remove_if_empty(out)
    update_names(out)
    return WriteReport(tuple(batch.results), out, failures=batch.failures)


def _require_same(result: Path, asked: Mapping[str, object], *, overwrite: bool) -> None:
    """Refuse a result that is not what was asked for, unless it may be replaced."""
    noted = open_image(result).attributes
    if "calibration" not in noted:
        raise StoreError(
            f"{result} exists and is not a calibrated prediction, so it is not replaced; choose "
            "another --out"
        )
    method = noted["calibration"], asked["calibration"]
    differences = {
        "calibration": "the method was {} and is now {}".format(*method),
        "calibration_tables": "other values were fitted",
        "calibrated_from": "another prediction was calibrated",
    }
    changed = [text for key, text in differences.items() if noted.get(key) != asked[key]]
    if changed and not overwrite:
        raise StoreError(
            f"{result} was calibrated otherwise: {'; '.join(changed)}; choose another --out, or "
            "replace what is there with --overwrite"
        )


def _write(store: SlideStore, calibration: Calibration, out: Path) -> None:
    image = store.probabilities
    classes = image.classes
    if classes.is_exclusive != (calibration.softmax is not None):
        raise StoreError(
            f"slide {store.name!r} has classes of mode {classes.mode}, and what was fitted is of "
            "another one; expected a prediction of the model that it was fitted on"
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
    """Values ``(H, W, C)`` as they are calibrated, few rows at a time."""
    for row in range(0, len(values), _ROWS):
        rows = values[row : row + _ROWS]
        if softmax is not None:
            rows[...] = softened(rows, softmax)
            continue
        for channel, table in enumerate(tables):
            rows[..., channel] = table[rows[..., channel]]
    return values
