"""The forward pass compared with a reference, and the precision drift."""

import gc
import time
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.cards import make_card
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError
from wsi_seg.models import (
    NetworkSpec,
    build_network,
    load_checkpoint,
    size_multiple,
)
from wsi_seg.models.checkpoint import shipped_checkpoint
from wsi_seg.predict.fuse import fuse_batch_norms
from wsi_seg.predict.predictor import PROBABILITY_STEPS, PrecisionDrift, Predictor, quantise


def card_of(classes=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    names = [f"c{index}" for index in range(classes)]
    return make_card(*names, in_channels=len(mean), mpp=None, mean=mean, std=std)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(NetworkSpec("Unet", "resnet18", 3, 1)).eval()


def tiles(count, side=64, channels=3):
    random = torch.Generator().manual_seed(side)
    size = (count, side, side, channels)
    return torch.randint(256, size, dtype=torch.uint8, generator=random)


@torch.inference_mode()
def written_out(network, card, images, multiple):
    """Compute the expected result of a predictor, in float32 and step by step."""
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
    x = images.permute(0, 3, 1, 2).float() * (1 / (255 * std)) + -mean / std
    side = x.shape[2]
    missing = -side % multiple
    x = nn.functional.pad(x, (0, missing, 0, missing), mode="replicate") if missing else x
    logits = network(x.contiguous(memory_format=torch.channels_last))[:, :, :side, :side]
    return (torch.sigmoid(logits.float()) * 4080).round().int()


@pytest.mark.parametrize("side", [64, 75])
def test_float32_on_a_cpu_equals_the_reference_bit_for_bit(network, side):
    card = card_of()
    found = Predictor(network, card, device="cpu", precision="fp32").predict(tiles(2, side))
    fast = fuse_batch_norms(network, 3).to(memory_format=torch.channels_last)
    expected = written_out(fast, card, tiles(2, side), size_multiple(network))
    assert found.dtype == torch.int32
    assert torch.equal(found, expected)


class Pointwise(nn.Module):
    """Pointwise network from five channels to two classes, with a declared stride of 8."""

    requires_divisible_input_shape = True

    def __init__(self):
        super().__init__()
        encoder: Any = nn.Identity()
        encoder.output_stride = 8
        self.encoder = encoder
        self.mix = nn.Conv2d(5, 2, 1)

    def forward(self, x):
        assert x.shape[2] % 8 == x.shape[3] % 8 == 0
        return self.mix(x)


@pytest.mark.parametrize("side", [1, 7, 8, 13])
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_any_channels_classes_and_sides(side, tta):
    torch.manual_seed(1)
    network, card = Pointwise(), card_of(2, mean=(0.1,) * 5, std=(0.3,) * 5)
    predictor = Predictor(network, card, device="cpu", precision="fp32", tta=tta)
    found = predictor.predict(tiles(3, side, 5))
    assert found.shape == (3, predictor.channels, side, side)
    assert found.is_contiguous()
    expected = written_out(network, card, tiles(3, side, 5), multiple=8)
    assert (found - expected).abs().max() <= 1  # five channels are summed in another order


def test_exclusive_classes_are_the_softmax_without_the_background():
    torch.manual_seed(1)
    network = nn.Conv2d(3, 4, 1)
    network.weight.data *= 20
    classes = ClassTable.named(["a", "b", "c"], mode="exclusive")
    card = card_of(3)
    card = replace(card, classes=classes)
    predictor = Predictor(network, card, device="cpu", precision="fp32")
    found = predictor.predict(tiles(2, 16))
    assert predictor.channels == 3
    assert found.is_contiguous()
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
    with torch.inference_mode():
        x = (tiles(2, 16).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = network(x).softmax(dim=1)[:, 1:] * PROBABILITY_STEPS
    assert (found - expected).abs().max() <= 1
    assert (found.sum(dim=1) <= PROBABILITY_STEPS + 3).all()
    slow = Predictor(network, card, device="cpu", precision="bf16")
    slow.predict(tiles(2, 96))
    assert 0 < slow.drift.labels < slow.drift.values


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0, 1e-9])
def test_probabilities_are_quantised(probability):
    found = quantise(torch.full((2, 1, 3, 3), probability))
    assert found.dtype == torch.int32
    assert found.unique().tolist() == [round(probability * PROBABILITY_STEPS)]


def test_nan_becomes_0_and_the_input_is_unchanged():
    given = torch.tensor([float("nan"), 0.25])
    assert quantise(given).tolist() == [0, 1020]
    assert given.isnan().tolist() == [True, False]


def test_fusing_changes_less_than_one_pixel_in_a_thousand(network):
    predictor = Predictor(network, card_of(), device="cpu", precision="fp32")
    assert predictor.drift == PrecisionDrift()
    predictor.predict(tiles(4))
    assert predictor.drift.labels < 1e-4
    assert predictor.drift.values < 1e-3


def test_bf16_reports_its_drift(network):
    predictor = Predictor(network, card_of(), device="cpu", precision="bf16")
    predictor.predict(tiles(4))
    assert 0 < predictor.drift.labels < predictor.drift.values <= 1


class Counted(nn.Module):
    """Returns 0.5, or 0.6 in float32, and records its calls."""

    asked: list[tuple[int, torch.dtype]] = []  # noqa: RUF012 (of the class: the network is copied)

    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        self.asked.append((len(x), x.dtype))
        exact = 0.4054651 if x.dtype == torch.float32 else 0.0
        return (self.logit + exact).expand(len(x), 1, *x.shape[2:])


def test_drift_is_measured_once_on_the_first_tiles_without_another_forward_pass():
    predictor = Predictor(Counted(), card_of(), device="cpu", precision="bf16", tta="flips")
    predictor.warm_up(6, 32)
    Counted.asked.clear()
    for _ in range(2):
        predictor.predict(tiles(5, 32))
    assert predictor.drift == PrecisionDrift(labels=1, values=1)
    fast = [(5, torch.bfloat16)] * 4 * 2
    assert sorted(Counted.asked, key=str) == sorted([*fast, (1, torch.float32)], key=str)


def test_the_exact_network_is_released_after_measuring_drift():
    network = Counted()
    predictor = Predictor(network.eval(), card_of(), device="cpu", precision="bf16")
    images = tiles(1, 32)
    predictor.predict(images)
    images.zero_()  # the stream reuses the memory
    assert predictor.drift == PrecisionDrift(labels=1, values=1)
    seen = weakref.ref(network)
    del network
    # The measuring thread returns its result before it releases its arguments.
    for _ in range(500):
        gc.collect()
        if seen() is None:
            return
        time.sleep(0.01)
    raise AssertionError("the network is still held")


def test_the_largest_drift_of_several():
    drifts = [PrecisionDrift(0.1, 0.2), PrecisionDrift(0.3, 0.1)]
    assert PrecisionDrift.largest(drifts) == PrecisionDrift(0.3, 0.2)
    assert PrecisionDrift.largest([]) == PrecisionDrift()


def test_warm_up_does_not_use_the_global_generator(network):
    predictor = Predictor(network, card_of(), device="cpu", precision="fp32")
    before = torch.get_rng_state()
    assert predictor.warm_up(2, 64) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_given_network_is_not_modified(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = build_network(NetworkSpec("Unet", "resnet18", 3, 1)).train()
    Predictor(network, card_of(), device="cpu", precision="bf16").predict(tiles(1))
    Predictor(training, card_of(), device="cpu").predict(tiles(1))
    assert training.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype


class Full(nn.Module):
    """Network that needs more memory than any device has."""

    def forward(self, x):
        if len(x) * x.shape[2] ** 2 > 64**2 - 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x[:, :1]


@pytest.mark.parametrize(("count", "way"), [(4, "--batch 2"), (1, "--tile 50")])
def test_running_out_of_memory_suggests_a_remedy(monkeypatch, count, way):
    monkeypatch.setattr("wsi_seg.predict.predictor.fuse_batch_norms", lambda network, *_: network)
    predictor = Predictor(Full(), card_of(), device="cpu", precision="fp32")
    with pytest.raises(ConfigError, match=f"too little memory .* {way}"):
        predictor.predict(tiles(count, 100))
    with pytest.raises(ConfigError, match=f"too little memory .* {way}"):
        predictor.warm_up(count, 100)


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # on Python 3.13.0
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiling_hardly_changes_results_and_happens_once(network, precision):
    plain, compiled = (
        Predictor(
            network, card_of(), device="cpu", precision=precision, tta="d4", compiled=compiled
        )
        for compiled in (False, True)
    )
    expected = plain.predict(tiles(2))
    compiled.warm_up(2, 64)
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = compiled.predict(tiles(2))
    assert (found - expected).abs().max() <= (16 if precision == "fp32" else 160)  # of 4,080 steps
    assert compiled.drift.labels < (1e-3 if precision == "fp32" else 1e-1)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_a_gpu_agrees_with_a_cpu(precision, tta):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    network, card = load_checkpoint(shipped_checkpoint())
    exact = Predictor(network, card, device="cpu", precision="fp32", tta=tta).predict(tiles(2, 128))
    predictor = Predictor(network, card, device="cuda", precision=precision, tta=tta)
    for _ in range(2):
        found = predictor.predict(tiles(2, 128).to(predictor.device)).cpu()
        assert (found - exact).abs().float().mean() < PROBABILITY_STEPS / 255
