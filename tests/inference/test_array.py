from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError, ConfigError, RegionError
from wsi_seg.inference.array import Predictor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.models import ModelCard
from wsi_seg.predict.ensemble import Model
from wsi_seg.store import open_collection, open_predictions


class Red(nn.Module):
    """Own module: the logit of a class is how red, or green, a pixel is."""

    def __init__(self, classes=1):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(8.0))
        self.classes = classes

    def forward(self, images):
        return self.gain * (images[:, : self.classes] - 0.5)


def card(**changes):
    values: dict[str, Any] = {
        "classes": ClassTable.named(["red"]),
        "mpp": 0.5,
        "tile_px": 64,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return ModelCard(**(values | changes))


OPTIONS = InferOptions(overlap=0.5, precision="fp32", device="cpu", batch=4)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (205, 131, 3), dtype=np.uint8)


def expected(rgb):
    return 1 / (1 + np.exp(-8 * (rgb[..., :1] / 255 - 0.5)))


@pytest.mark.parametrize("shape", [(205, 131), (1, 1), (64, 64), (30, 200), (700, 90)])
def test_an_array_of_any_size_is_predicted_as_a_whole(shape):
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = Predictor.of(Red(), card(), OPTIONS)(rgb)
    assert (found.shape, found.dtype) == ((*shape, 1), np.float32)
    assert np.abs(found - expected(rgb)).max() <= 0.51 / 255 + 1 / 16 / 255


def test_labels_are_the_most_probable_class_above_one_half(rgb):
    classes = ClassTable.named(["red", "green"])
    predictor = Predictor.of(Red(2), card(classes=classes), OPTIONS)
    assert predictor.classes == classes
    found = predictor(rgb)
    labels = predictor.labels(rgb)
    assert (labels.shape, labels.dtype) == ((205, 131), np.uint8)
    assert np.array_equal(labels == 0, (found <= 127 / 255).all(axis=2))
    clear = np.abs(found[..., 0] - found[..., 1]) > 0.1
    best = np.where(found.max(axis=2) > 127 / 255, found.argmax(axis=2) + 1, 0)
    assert np.array_equal(labels[clear], best[clear])


def test_an_array_equals_the_slide_of_its_pixels(store, pixels, tmp_path):
    collection = open_collection(store.path.parent)
    report = infer(collection, Red(), tmp_path / "p.zarr", OPTIONS, card=card())
    assert report.tiles > 0
    slide = open_predictions(tmp_path / "p.zarr")["slide"]
    found = Predictor.of(Red(), card(), OPTIONS)(pixels[0])
    assert np.array_equal(np.rint(found * 255).astype(np.uint8), slide.image[:, :])
    assert np.array_equal(Predictor.of(Red(), card(), OPTIONS).labels(pixels[0]),
                          slide.label("prediction")[:, :])  # fmt: skip


def test_an_array_of_another_scale_is_resampled_and_brought_back(rgb):
    smooth = np.repeat(np.repeat(rgb[:40, :30], 4, 0), 4, 1)
    found = Predictor.of(Red(), card(mpp=1.0), OPTIONS)(smooth, mpp=0.5)
    assert found.shape == (160, 120, 1)
    middle = found[1::4, 1::4]
    assert np.abs(middle - expected(rgb[:40, :30])).mean() < 0.1
    with pytest.raises(BatchError, match="at most"):
        Predictor.of(Red(), card(mpp=0.1), OPTIONS)(rgb, mpp=0.5)


def test_what_is_not_a_picture_is_refused(rgb):
    predictor = Predictor.of(Red(), card(), OPTIONS)
    for wrong in (rgb[..., 0], rgb.astype(np.float32), rgb[..., :2], rgb[:0]):
        with pytest.raises(RegionError, match=r"got an array \("):
            predictor(wrong)
    with pytest.raises(ConfigError, match="adaptive"):
        Predictor.of(Red(), card(), InferOptions(overlap="adaptive"))


def test_a_module_that_does_not_fit_its_card_is_refused(store, tmp_path):
    collection = open_collection(store.path.parent)
    out = tmp_path / "p.zarr"
    with pytest.raises(ConfigError, match=r"a logit per class and pixel"):
        infer(collection, Red(2), out, OPTIONS, card=card())
    with pytest.raises(ConfigError, match=r"expected card=ModelCard"):
        infer(collection, Red(), out, OPTIONS)
    with pytest.raises(ConfigError, match="2 means"):
        card(mean=(0.0, 0.0))


def test_another_weight_is_another_model(store, tmp_path):
    collection = open_collection(store.path.parent)
    out = tmp_path / "p.zarr"
    infer(collection, Red(), out, OPTIONS, card=card())
    changed = Red()
    changed.gain.data += 1
    with pytest.raises(BatchError, match="checkpoint"):
        infer(collection, changed, out, OPTIONS, card=card())


def test_measuring_a_network_leaves_each_of_its_modules_in_its_mode(tmp_path):
    network = nn.Sequential(Red(), nn.BatchNorm2d(1))
    network.train()
    network[1].eval()  # a norm that training keeps frozen
    Model.of(network, card())
    assert [module.training for module in network.modules()] == [True, True, False]


def test_without_a_file_the_model_that_ships_is_loaded(rgb):
    predictor = Predictor.load()
    assert predictor.classes.names == ("nucleus",)
    assert predictor.labels(rgb).shape == rgb.shape[:2]
