import logging
from dataclasses import replace
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from wsi_seg.errors import ConfigError
from wsi_seg.models import NetworkSpec, build_network, load_checkpoint, save_checkpoint
from wsi_seg.models.network import ARCHITECTURES, current_encoder
from wsi_seg.models.training_network import GeneralisedMean, TrainingNetwork

ENCODER = "tu-mobilenetv3_small_050"
# PAN and DeepLab need an encoder that supports dilation, DPT a transformer.
ENCODERS = {"DPT": "tu-vit_tiny_patch16_224"}


def spec(architecture="Unet", **changes):
    usual = NetworkSpec(architecture, ENCODERS.get(architecture, ENCODER), 3, 2)
    return replace(usual, **changes)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_has_the_same_logits_in_a_training_network(architecture):
    network = build_network(spec(architecture)).eval()
    learner = TrainingNetwork(network, classes=2, head="avg").eval()
    side = {"DPT": 224, "PAN": 128}.get(architecture, 64)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        outputs = learner(x)
        assert torch.equal(outputs.logits, network(x))
    assert outputs.logits.shape == (2, 2, side, side)
    assert outputs.class_logits.shape == (2, 2)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_may_have_any_number_of_channels(channels):
    network = build_network(spec(in_channels=channels)).eval()
    assert network(torch.zeros(1, channels, 32, 64)).shape == (1, 2, 32, 64)


@pytest.mark.parametrize("architecture", ["Unet", "UnetPlusPlus"])
def test_attention_adds_layers_that_are_saved_in_the_checkpoint(architecture, tmp_path, card_for):
    plain, attentive = (
        build_network(spec(architecture, encoder="mobilenet_v2", decoder_attention=attention))
        for attention in (None, "scse")
    )
    count = [sum(p.numel() for p in n.parameters()) for n in (plain, attentive)]
    assert count[1] > count[0]
    path = tmp_path / "net.safetensors"
    given = spec(architecture, encoder="mobilenet_v2", decoder_attention="scse")
    save_checkpoint(path, attentive, card_for(given))
    loaded, card = load_checkpoint(path)
    assert card.decoder_attention == "scse"
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), attentive.eval()(x))


@pytest.mark.parametrize("architecture", ["Unet", "UnetLean", "LinknetConcat", "MAnet"])
def test_a_skip_at_full_resolution_sees_single_pixels(architecture, tmp_path, card_for):
    given = spec(architecture, full_resolution_skip=4)
    network = build_network(given).eval()
    image = torch.zeros(1, 3, 64, 64)
    image[..., 31, 31] = 1.0
    change = (network(image) - network(torch.zeros_like(image))).abs().amax((0, 1))
    plain = build_network(spec(architecture)).eval()
    assert sum(p.numel() for p in network.parameters()) > sum(p.numel() for p in plain.parameters())
    assert change[31, 31] > 0
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network, card_for(given))
    loaded, card = load_checkpoint(path)
    assert card.full_resolution_skip == 4
    assert torch.equal(loaded(image), network(image))


def test_inner_depths_are_found_behind_the_skip():
    learner = TrainingNetwork(
        build_network(spec("Unet", full_resolution_skip=4)), classes=2, auxiliary=True
    )
    plain: Any = build_network(spec("Unet"))
    assert len(learner.auxiliary) == len(plain.decoder.blocks) - 1


def test_a_skip_at_full_resolution_is_refused_for_other_architectures():
    with pytest.raises(ConfigError, match="FPN decodes at reduced resolution"):
        build_network(spec("FPN", full_resolution_skip=4))


# The last block of the lean decoder has fewer channels than the reduction of the attention.
@pytest.mark.parametrize("architecture", ["FPN", "UnetLean"])
def test_attention_is_refused_for_other_architectures(architecture):
    with pytest.raises(ConfigError, match=f"{architecture} takes no decoder_attention"):
        build_network(spec(architecture, decoder_attention="scse"))


def test_concatenated_skips_reach_every_depth():
    joined: Any = build_network(spec("LinknetConcat"))
    mixes = [block.mix for block in joined.decoder.blocks]
    added = build_network(spec("Linknet"))
    assert [m is None for m in mixes] == [False] * 4 + [True]
    for mix, skip in zip(mixes[:-1], joined.encoder.out_channels[-2:0:-1], strict=True):
        assert mix.in_channels == mix.out_channels + skip
    x = torch.randn(1, 3, 64, 64)
    assert joined.eval()(x).shape == added.eval()(x).shape
    joined.train()(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(m.weight.grad.abs().max() > 0 for m in mixes[:-1])


def test_a_generalised_mean_is_between_mean_and_maximum():
    x = torch.rand(2, 3, 5, 7)
    assert torch.allclose(GeneralisedMean(1.0)(x), x.mean((2, 3), keepdim=True), atol=1e-5)
    assert torch.allclose(GeneralisedMean(200.0)(x), x.amax((2, 3), keepdim=True), atol=0.05)
    middle = GeneralisedMean(3.0)(x)
    assert (middle > x.mean((2, 3), keepdim=True)).all()
    assert (middle < x.amax((2, 3), keepdim=True)).all()


@pytest.mark.parametrize("pooling", ["avg", "max", "gem"])
def test_a_head_uses_the_pooled_deepest_features_and_is_trained(pooling):
    learner: Any = TrainingNetwork(build_network(spec()), classes=2, head=pooling, dropout=0.2)
    x = torch.randn(3, 3, 96, 64)
    learner.eval()
    deepest = learner.network.encoder(x)[-1]
    pooled = {
        "avg": deepest.mean((2, 3)),
        "max": deepest.amax((2, 3)),
        "gem": (deepest.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3),
    }[pooling]
    linear = learner.head[-1]
    expected = pooled @ linear.weight.T + linear.bias
    assert torch.allclose(learner(x).class_logits, expected, atol=1e-5)
    learner.train()
    learner(x).class_logits.square().sum().backward()
    stem = next(learner.network.encoder.parameters())
    assert all(p.grad.abs().max() > 0 for p in (*learner.head.parameters(), stem))


@pytest.mark.parametrize("architecture", ["Unet", "UnetLean", "Linknet", "MAnet", "LinknetConcat"])
def test_inner_depths_have_outputs_that_are_not_saved(architecture):
    network: Any = build_network(spec(architecture))
    names = set(network.state_dict())
    learner: Any = TrainingNetwork(network, classes=2, auxiliary=True)
    outputs = learner(torch.randn(2, 3, 64, 64))
    assert [logits.shape for logits in outputs.auxiliary] == [(2, 2, 64, 64)] * 4
    sum(logits.square().sum() for logits in outputs.auxiliary).backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in learner.auxiliary)
    assert set(network.state_dict()) == names
    assert not any(block._forward_hooks for block in network.decoder.blocks)


def test_deep_supervision_without_inner_depths_is_refused():
    with pytest.raises(ConfigError, match="PSPNet has no inner depths"):
        TrainingNetwork(build_network(spec("PSPNet")), classes=2, auxiliary=True)


def test_dropout_drops_channels_only_in_training():
    learner = TrainingNetwork(build_network(spec()), classes=2, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    learner.eval()
    assert torch.equal(learner(x).logits, learner(x).logits)
    learner.train()
    assert not torch.equal(learner(x).logits, learner(x).logits)


def test_a_frozen_encoder_keeps_its_statistics():
    learner = TrainingNetwork(build_network(spec()), classes=2)
    learner.freeze_encoder(True)
    learner.train()
    encoder: Any = learner.network.encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    learner(5 + 3 * torch.randn(2, 3, 64, 64)).logits.sum().backward()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in encoder.parameters())
    learner.freeze_encoder(False)
    learner(5 + 3 * torch.randn(2, 3, 64, 64)).logits.sum().backward()
    assert any(not torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(m.training for m in norms)


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("tu-tf_efficientnet_b4_ns", "tu-tf_efficientnet_b4.ns_jft_in1k"),
        ("timm-efficientnet-b3", "tu-tf_efficientnet_b3"),
        ("timm-mobilenetv3_small_100", "tu-tf_mobilenetv3_small_100"),
        ("timm-regnetx_002", "tu-regnetx_002"),
        ("timm-skresnet18", "tu-skresnet18"),
    ],
)
def test_old_names_are_accepted_with_a_warning(old, now, caplog):
    with caplog.at_level(logging.WARNING):
        assert current_encoder(old) == now
    assert now in caplog.text


@pytest.mark.parametrize("name", ["resnet34", "tu-resnet10t", "tu-resnet50.a1_in1k", "nonsense"])
def test_current_names_are_unchanged(name, caplog):
    assert current_encoder(name) == name
    assert not caplog.text


def test_every_old_smp_name_has_a_current_name():
    for name in smp.encoders.get_encoder_names():
        now = current_encoder(name).removeprefix("tu-")
        assert not name.startswith("timm-") or smp.encoders.timm_universal.timm.is_model(now)
