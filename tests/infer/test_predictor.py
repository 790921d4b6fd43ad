"""The forward pass: what speed costs is measured, and compiling changes next to nothing."""

import numpy as np
import pytest
import torch

from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError
from wsi_seg.infer.predictor import Change, Predictor
from wsi_seg.models import ModelCard, NetworkSpec, build_network

CARD = ModelCard(
    architecture="Unet", encoder="resnet18", in_channels=3, classes=ClassTable.named(["a"]),
    mpp=None, tile_px=64, mean=(0.5,) * 3, std=(0.25,) * 3,
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(NetworkSpec("Unet", "resnet18", 3, 1))


def tiles(count):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_fp32_with_fewer_layers_changes_less_than_one_px_in_a_thousand(network):
    predictor = Predictor(network, CARD, precision="fp32")
    change = predictor.change(tiles(4))
    assert change.labels < 1e-4
    assert change.values < 1e-3
    assert predictor.change(tiles(4)) == Change()  # the network it was compared with is gone


def test_bf16_tells_what_it_changes(network):
    change = Predictor(network, CARD, device="cpu", precision="bf16").change(tiles(4))
    assert 0 < change.labels < change.values <= 1


@pytest.mark.parametrize(("count", "way"), [(4, "--batch 2"), (1, "--tile 32")])
def test_a_device_with_too_little_memory_says_what_to_do(network, monkeypatch, count, way):
    predictor = Predictor(network, CARD, device="cpu", precision="fp32")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "_logits", full)
    with pytest.raises(ConfigError, match=f"too little memory .* {way}"):
        predictor.predict(tiles(count))


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # on Python 3.13.0
def test_compiling_changes_next_to_nothing(network):
    plain = Predictor(network, CARD, device="cpu", precision="fp32").predict(tiles(2))
    compiled = Predictor(network, CARD, device="cpu", precision="fp32", compiled=True)
    found = compiled.predict(tiles(2))
    assert (found - plain).abs().max() <= 16  # of 4,080 steps
    assert compiled.change(tiles(2)).labels < 1e-3
