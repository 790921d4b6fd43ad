from dataclasses import replace
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models import NetworkSpec, build_network, size_multiple
from wsi_seg.models.memory_estimate import estimate_memory
from wsi_seg.models.network import blank_network, published_normalisation

SMALL = "mobilenet_v2"


def spec(**changes):
    usual = NetworkSpec(architecture="Unet", encoder=SMALL, in_channels=3, classes=2)
    return replace(usual, **changes)


@pytest.mark.parametrize(
    "architecture", ["Unet", "UnetLean", "linknet", "UnetPlusPlus", "FPN", "PAN", "DeepLabV3Plus"]
)
def test_logits_have_the_size_of_the_image(architecture):
    torch.manual_seed(1)
    network = build_network(spec(architecture=architecture)).eval()
    side = 128
    assert side % size_multiple(network) == 0
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, side, 2 * side))
    assert logits.shape == (1, 2, side, 2 * side)
    assert logits.min() < 0 or logits.max() > 1


def test_a_blank_network_has_the_same_layers_without_random_draws():
    before = torch.get_rng_state()
    blank, drawn = blank_network(spec()), build_network(spec())
    assert not torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(before)
    blank_network(spec())
    assert torch.equal(torch.get_rng_state(), before)
    blank.load_state_dict(drawn.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(blank.eval()(images), drawn.eval()(images))


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet-b0", "mit_b0", "tu-resnet10t"])
def test_memory_is_estimated_without_computing_on_random_numbers(encoder):
    before = torch.get_rng_state()
    found = estimate_memory(spec(encoder=encoder))
    assert torch.equal(torch.get_rng_state(), before)
    network = build_network(spec(encoder=encoder))
    values = [*network.parameters(), *network.buffers()]
    assert found.parameters == sum(value.numel() for value in values)
    assert 10 < found.values_per_px < 1000


def test_timm_encoders_have_the_prefix_tu():
    network = build_network(spec(encoder="tu-resnet10t")).eval()
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 2, 64, 64)


def test_sides_must_be_multiples_of_the_encoders_stride():
    network = build_network(spec(architecture="Linknet")).eval()
    multiple = size_multiple(network)
    assert multiple == 32
    with pytest.raises(RuntimeError):
        network(torch.randn(1, 3, multiple + 1, multiple))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"architecture": "Unett"}, "unet"),
        ({"encoder": "resnet19"}, "resnet18"),
        ({"encoder": "tu-resnet10"}, "tu-resnet10t"),
    ],
)
def test_unknown_names_come_with_suggestions(changes, hint):
    with pytest.raises(ConfigError, match=hint):
        build_network(spec(**changes))


def test_an_incompatible_pair_is_a_config_error():
    with pytest.raises(ConfigError, match="is incompatible with"):
        build_network(spec(architecture="DPT", encoder="resnet18"))


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet10t"])
def test_a_failed_download_is_an_error(monkeypatch, encoder):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", fail)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(CheckpointError, match=r"model\.weights: null"):
        build_network(spec(encoder=encoder), weights="imagenet")


def test_unknown_published_weights_are_an_error():
    with pytest.raises(CheckpointError, match="got no weights 'moon'"):
        build_network(spec(), weights="moon")


def test_encoder_weights_from_a_local_file(tmp_path):
    torch.manual_seed(1)
    source: Any = build_network(spec())
    path = tmp_path / "encoder.safetensors"
    save_file(source.encoder.state_dict(), path)
    built: Any = build_network(spec(architecture="FPN"), weights=path)
    pairs = zip(source.encoder.parameters(), built.encoder.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_whole_network_may_initialise_one_with_other_classes(tmp_path):
    torch.manual_seed(1)
    source: Any = build_network(spec())
    path = tmp_path / "whole.safetensors"
    save_file(source.state_dict(), path)
    built: Any = build_network(spec(classes=5), weights=path)
    assert torch.equal(next(built.decoder.parameters()), next(source.decoder.parameters()))
    assert built.segmentation_head[0].out_channels == 5
    with pytest.raises(CheckpointError, match="do not match"):
        build_network(spec(architecture="FPN"), weights=path)


def test_unreadable_weight_files_are_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read"):
        build_network(spec(), weights=tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"text")
    with pytest.raises(CheckpointError, match="cannot read"):
        build_network(spec(), weights=tmp_path / "w.safetensors")


def test_normalisation_is_that_of_the_weights(monkeypatch):
    assert published_normalisation(spec(), None).mean == (0.485, 0.456, 0.406)
    stated = {"input_space": "BGR", "input_range": [0, 255], "mean": [1], "std": [1]}
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda *names: stated)
    with pytest.raises(CheckpointError, match="BGR"):
        published_normalisation(spec(), "imagenet")
