"""Owns a small painted slide with its truth and a prediction that is wrong in one known place."""

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.annotations import read_annotations
from wsi_seg.choices import Save
from wsi_seg.geometry import Extent
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.labels import write_labels
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.progress import Silent
from wsi_seg.reading.resample import read_label
from wsi_seg.store import (
    LabelInfo,
    PredictionInfo,
    create_collection,
    create_group,
    open_collection,
)
from wsi_seg.store.names import LABELS, PREDICTION_LABEL
from wsi_seg.testing.stores import write_image
from wsi_seg.testing.tissue import CLASSES, write_tissue_slide

NAME = "painted"
MPP = 0.5

_EXTENT = Extent(height=2100, width=2700)
_DOWNSAMPLE = 4

# Probability, in steps of 1/255, of what is true, of what is not, and of the one mistake.
TRUE, FALSE, MISTAKE = 200, 20, 140


@dataclass(frozen=True, slots=True, eq=False)
class PaintedPrediction:
    """Where the collections are, and what is in them.

    Parameters
    ----------
    store, prediction
        Collections of one slide, ``painted``.
    probability
        ``(H, W)`` uint8 at a quarter of the slide's size.
    mistake
        Bounding box in level-0 pixels of the object that is found and not true: x, y, x_end, y_end.
    """

    store: Path
    prediction: Path
    probability: NDArray[np.uint8]
    mistake: tuple[int, int, int, int]


def paint_prediction(folder: Path) -> PaintedPrediction:
    """Put there a slide of 2,700 x 2,100 px, its label ``annotations`` and its prediction."""
    shutil.copytree(_painted(), folder, dirs_exist_ok=True)
    return PaintedPrediction(
        store=folder / "store.zarr",
        prediction=folder / "pred.zarr",
        probability=_probability(folder / "store.zarr"),
        mistake=(0, 0, 15 * _DOWNSAMPLE, 12 * _DOWNSAMPLE),
    )


@cache
def _painted() -> Path:
    """Paint them once for all tests of a process, since that takes seconds; tests get copies."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    slide = folder / f"{NAME}.tif"
    write_tissue_slide(slide, height=_EXTENT.height, width=_EXTENT.width, seed=3, mpp=MPP)
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    write_labels(store, read_annotations(slide.with_suffix(".geojson")), CLASSES, "annotations")
    write_prediction(folder / "pred.zarr", _probability(folder / "store.zarr"))
    return folder


def _probability(collection: Path) -> NDArray[np.uint8]:
    (store,) = open_collection(collection)
    size = _EXTENT.scaled(_DOWNSAMPLE)
    label = store.label("annotations")
    truth = read_label(label, size, 0, 0, height=size.height, width=size.width)
    probability = np.where(truth > 0, TRUE, FALSE).astype(np.uint8)
    probability[:12, :15] = MISTAKE
    return probability


def write_prediction(path: Path, probability: NDArray[np.uint8], *, saved: Save = "both") -> None:
    """Write a prediction collection of the painted slide.

    Parameters
    ----------
    path
        Of the collection.
    probability
        ``(H, W)`` uint8, value / 255.
    saved
        What is saved of it.
    """
    create_collection(path)
    group = path / NAME
    settings = {"tile_px": 256, "overlap": 0.5}
    about = PredictionInfo(classes=CLASSES, settings=settings, saved=saved).to_json()
    label = LabelInfo(classes=CLASSES).to_json()
    if saved == "labels":
        create_group(group, {**about, "mpp": MPP, "downsample": float(_DOWNSAMPLE)})
    else:
        write_image(group, probability[:, :, None], about, downsample=_DOWNSAMPLE)
    if saved != "probabilities":
        ids = label_map(probability[:, :, None])
        write_image(group / LABELS / PREDICTION_LABEL, ids, label, downsample=_DOWNSAMPLE)
