"""Predictions with a ring, a block and a speck, as inference leaves them."""

import numpy as np
import pytest

from wsi_seg.classes import ClassTable
from wsi_seg.store import create_collection, open_predictions
from wsi_seg.testing.stores import write_image

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])


@pytest.fixture
def make_prediction():
    """Function that writes a collection of one predicted slide."""
    return _make_prediction


@pytest.fixture
def rings():
    """Function that gives the label map."""
    return _rings


def _make_prediction(folder, labels, downsample=2.0, mpp=0.5):
    path = folder / "pred.zarr"
    create_collection(path)
    scale = {"mpp": mpp, "downsample": downsample, "shard_px": 512}
    group, none = path / "slide", np.zeros((*labels.shape, 2), np.uint8)
    write_image(group, none, {"kind": "prediction"}, **scale)
    attributes = {"kind": "label", "classes": CLASSES.to_json()}
    write_image(group / "labels" / "prediction", labels, attributes, **scale)
    return open_predictions(path)


def _rings():
    y, x = np.mgrid[:700, :300]
    distance = np.hypot(y - 510, x - 150)
    labels = np.zeros((700, 300), dtype=np.uint8)
    labels[(distance < 120) & (distance > 60)] = 1
    labels[20:40, 30:70] = 2
    labels[600:602, 2:4] = 2
    return labels
