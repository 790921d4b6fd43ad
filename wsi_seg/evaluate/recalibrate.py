"""Owns writing a prediction whose probabilities were calibrated on another one with a truth."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Method
from wsi_seg.errors import StoreError
from wsi_seg.evaluate.calibration import Reliability
from wsi_seg.geometry import Region
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.postprocess.write import classes_of
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import (
    LABEL,
    Collection,
    SlideStore,
    create_collection,
    create_multiscale,
    discard,
    fill_pyramid,
    finish,
    note_names,
    open_image,
    store_digest,
    strip_rows,
    tidy,
    write_strip,
)


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


def write_calibrated(
    prediction: Collection,
    calibration: Calibration,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress,
) -> None:
    """Write a collection with calibrated probabilities and the label maps that follow.

    Slides that are in ``out`` with the same calibration of the same prediction are kept; each is
    written whole or not at all.

    Parameters
    ----------
    prediction
        What is calibrated.
    calibration
        How.
    out
        Collection to make, continue or add to.
    overwrite
        Replace slides that were calibrated before.
    progress
        Advanced by slides.

    Raises
    ------
    StoreError
        If a prediction has no probabilities, or a class that was not calibrated; or a slide in
        ``out`` was calibrated otherwise and is not to be replaced, or was not calibrated at all.
    OutputError
        If ``out`` cannot be written.
    """
    create_collection(out)
    there = {store.name for store in prediction if (out / store.name).exists()}
    for name in sorted(there):
        _require_same(out / name, calibration.note(prediction[name]), overwrite=overwrite)
    progress.start("calibrate", len(prediction), "slides")
    for store in prediction:
        if overwrite or store.name not in there:
            _write(store, calibration, out)
        progress.advance(1)
    progress.finish()
    tidy(out)
    note_names(out)


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
    classes = classes_of(image)
    missing = [name for name in classes.names if name not in calibration.tables]
    if missing:
        raise StoreError(
            f"slide {store.name!r} has class {missing[0]!r}, which was not calibrated; expected "
            f"one of {', '.join(calibration.tables)}"
        )
    tables = [calibration.tables[name] for name in classes.names]
    partial = out / ".partial" / store.name
    discard(partial)
    downsample = store.attributes.get("downsample", 1.0)
    assert isinstance(downsample, int | float)
    mpp = store.pyramid.mpp
    label = partial / "labels" / LABEL
    notes = dict(store.attributes) | calibration.note(store) | {"saved": "both"}
    about = {"kind": "label", "classes": classes.to_json()}
    for path, channels, attributes in ((partial, len(classes), notes), (label, None, about)):
        create_multiscale(
            path,
            extents=store.pyramid.extents,
            channels=channels,
            mpp=None if mpp is None else mpp / downsample,
            downsample=downsample,
            attributes=attributes,
            name=path.name,
        )
    extent, rows = store.pyramid.extent, strip_rows(partial)
    for y in range(0, extent.height, rows):
        height = min(rows, extent.height - y)
        region = Region(level=0, y=y, x=0, height=height, width=extent.width)
        values = image.read(region, cached=False)
        for channel, table in enumerate(tables):
            values[..., channel] = table[values[..., channel]]
        write_strip(partial, 0, y, values)
        write_strip(label, 0, y, label_map(values))
    fill_pyramid(partial, nearest=False, progress=Silent())
    fill_pyramid(label, nearest=True, progress=Silent())
    finish(partial, out / store.name, replace=True)
