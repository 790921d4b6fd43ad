"""Owns writing a prediction whose probabilities were calibrated on another one with a truth."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.choices import Method
from wsi_seg.errors import StoreError
from wsi_seg.evaluation.calibration import Reliability
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


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a prediction's values are replaced by.

    Parameters
    ----------
    method
        See `Reliability.table`.
    tables
        ``(256,)`` uint8 of each class.
    """

    method: Method
    tables: Mapping[str, NDArray[np.uint8]]

    @classmethod
    def fit(cls, found: Mapping[str, Reliability], method: Method) -> "Calibration":
        """Fit each class on its own."""
        return cls(method, {name: one.table(method) for name, one in found.items()})

    def note(self, store: SlideStore) -> dict[str, object]:
        """Everything that decides the result of a prediction, as plain JSON values."""
        tables = {n: hashlib.sha256(one.tobytes()).hexdigest() for n, one in self.tables.items()}
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
    missing = [name for name in classes.names if name not in calibration.tables]
    if missing:
        raise StoreError(
            f"slide {store.name!r} has class {missing[0]!r}, which was not calibrated; expected "
            f"one of {', '.join(calibration.tables)}"
        )
    tables = [calibration.tables[name] for name in classes.names]
    notes = dict(store.attributes) | calibration.note(store) | {"saved": "both"}
    layout = Layout.like(image, channels=len(classes))
    about = {"kind": "label", "classes": classes.to_json()}
    with writing(out / store.name, layout, notes) as draft:
        label = draft.inside(f"{LABELS}/{PREDICTION_LABEL}", Layout.like(image), about)
        for strip in draft.strips():
            values = image.read(strip, cached=False)
            for channel, table in enumerate(tables):
                values[..., channel] = table[values[..., channel]]
            draft.write(strip, values)
            label.write(strip, label_map(values))
