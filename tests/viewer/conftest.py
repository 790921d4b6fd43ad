"""A painted slide, its truth, and a prediction that is wrong in places it knows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wsi_seg.annotations import read_annotations
from wsi_seg.data.scaled import read_label
from wsi_seg.geometry import Extent
from wsi_seg.masks.labels import write_labels, write_tissue
from wsi_seg.progress import Silent
from wsi_seg.store import (
    completed,
    create_collection,
    create_multiscale,
    fill_pyramid,
    open_collection,
    write_strip,
)
from wsi_seg.store.tile import tile_slides
from wsi_seg.testing.tissue import CLASSES, write_tissue_slide

HEIGHT, WIDTH, MPP, DOWN = 2100, 2700, 0.5, 4


def make_prediction(path: Path, probability: np.ndarray) -> None:
    create_collection(path)
    group = path / "painted"
    common = {"extents": completed([Extent(*probability.shape)]), "mpp": MPP, "downsample": DOWN}
    attributes = {"kind": "prediction", "classes": CLASSES.to_json(), "settings": {"tile_px": 256}}
    create_multiscale(group, channels=1, attributes=attributes, name="painted", **common)
    label = group / "labels" / "prediction"
    about = {"kind": "label", "classes": CLASSES.to_json()}
    create_multiscale(label, channels=None, attributes=about, name="prediction", **common)
    write_strip(group, 0, 0, probability[:, :, None])
    write_strip(label, 0, 0, (probability > 127).astype(np.uint8))
    fill_pyramid(group, nearest=False, progress=Silent())
    fill_pyramid(label, nearest=True, progress=Silent())


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    """Paths of a slide's collection and of its prediction, and the probabilities in it."""
    folder = tmp_path_factory.mktemp("seen")
    slide = folder / "painted.tif"
    write_tissue_slide(slide, height=HEIGHT, width=WIDTH, seed=3, mpp=MPP)
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    write_tissue(store)
    write_labels(store, read_annotations(slide.with_suffix(".geojson")), CLASSES, "annotations")
    size = Extent(HEIGHT // DOWN, WIDTH // DOWN)
    truth = read_label(store.label("annotations"), size, 0, 0, height=size.height, width=size.width)
    probability = np.where(truth > 0, 200, 20).astype(np.uint8)
    probability[:12, :15] = 140  # found, not true
    make_prediction(folder / "pred.zarr", probability)
    return SimpleNamespace(
        store=folder / "store.zarr", prediction=folder / "pred.zarr", probability=probability
    )
