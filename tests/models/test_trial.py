"""Unsupported sizes and batches are reported before training."""

import pytest
import torch
from torch import nn

from wsi_seg.errors import ConfigError
from wsi_seg.models import NetworkSpec, build_network
from wsi_seg.models.memory_estimate import MemoryEstimate, estimate_memory
from wsi_seg.models.training_network import EncoderTraining, TrainingNetwork
from wsi_seg.models.trial import on_first_side, require_trainable

SMALL = "tu-mobilenetv3_small_050"
FIXED = "tu-swin_tiny_patch4_window7_224"


def check(network, *, patch_px=64, batch_size=1, keep_norm=False):
    require_trainable(
        network, 3, patch_px=patch_px, batch_size=batch_size, keep_norm=keep_norm, expected="..."
    )


@pytest.mark.parametrize(
    ("architecture", "patch_px"),
    [("PAN", 128), ("DeepLabV3Plus", 64), ("DeepLabV3", 64), ("Unet", 32), ("FPN", 32)],
)
def test_a_batch_of_one_is_refused_if_batch_norm_sees_one_value(architecture, patch_px):
    network = build_network(NetworkSpec(architecture, SMALL, 3, 1))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ConfigError, match=r"train\.batch_size 1 .*one value per channel"):
        check(network, patch_px=patch_px)
    # torch raises the same, and two patches are enough.
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.zeros(1, 3, patch_px, patch_px))
    check(network, patch_px=patch_px, batch_size=2)
    assert network.training
    network.load_state_dict(state)
    check(network, patch_px=patch_px, batch_size=2)
    found = network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in state.items())


def test_a_patch_too_small_for_any_batch_is_refused():
    network = build_network(NetworkSpec("PAN", SMALL, 3, 1))
    with pytest.raises(ConfigError, match=r"images of 64 px .*train\.batch_size 1 and patch_px 64"):
        check(network)
    with pytest.raises(ConfigError, match=r"images of 64 px .*too small\); \.\.\.$"):
        check(network, batch_size=2)


def test_norms_with_kept_statistics_accept_any_batch():
    network = build_network(NetworkSpec("Unet", SMALL, 3, 1))
    check(network, patch_px=32, keep_norm=True)
    learner = TrainingNetwork(
        network, classes=1, encoder_training=EncoderTraining(keep_norm=True)
    ).train()
    assert learner(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 1, 32, 32)


@pytest.mark.parametrize("encoder", [FIXED, "tu-maxvit_rmlp_pico_rw_256"])
def test_an_encoder_with_a_fixed_size_is_reported_before_training(encoder):
    network = build_network(NetworkSpec("Unet", encoder, 3, 1))
    size = int(encoder[-3:])
    with pytest.raises(ConfigError, match=r"does not take images of 64 px \("):
        check(network)
    check(network, patch_px=size, batch_size=2)


def test_depths_of_an_encoder_with_a_fixed_size_are_measured_with_its_patch():
    network = build_network(NetworkSpec("Unet", FIXED, 3, 1))
    learner = TrainingNetwork(network, classes=1, auxiliary=True, patch_px=224).eval()
    with torch.no_grad():
        outputs = learner(torch.zeros(1, 3, 224, 224))
    assert {one.shape for one in outputs.auxiliary} == {(1, 1, 224, 224)}


def test_a_tiny_tile_needs_more_memory_per_pixel_than_a_large_one():
    spec = NetworkSpec("Unet", "resnet18", 3, 1)
    large, small, one = (estimate_memory(spec, side).values_per_px for side in (512, 32, 1))
    assert one > 10 * small > 10 * large / 2


def test_memory_is_estimated_with_the_tile_if_a_tiny_image_is_refused():
    spec = NetworkSpec("Unet", FIXED, 3, 1)
    assert estimate_memory(spec, 224).values_per_px > 1
    with pytest.raises(ConfigError, match=r"images of 70 px .*leave out --tile"):
        estimate_memory(spec, 70)


class Half(nn.Module):
    """Network that returns fewer logits than pixels."""

    def forward(self, x):
        return x[:, :1, ::2, ::2]


def test_fewer_logits_than_pixels_are_refused():
    with pytest.raises(ConfigError, match=r"returns \(32, 32\) logits for patches of 64 px"):
        check(Half())


def test_sides_are_tried_in_order():
    tried = []

    def trial(side):
        tried.append(side)
        assert side == 96
        return side

    assert on_first_side(trial, 64, 96, 128, expected="...") == 96
    assert tried == [64, 96]
    with pytest.raises(ConfigError, match=r"images of 128 px .*; take another"):
        on_first_side(trial, 64, 128, expected="take another")


@pytest.mark.parametrize(("side", "padded"), [(1, 32), (32, 32), (33, 64), (100, 128)])
def test_tiles_are_padded_to_what_the_network_takes(side, padded):
    assert MemoryEstimate(0, 0.0, multiple=32).padded(side) == padded
    assert MemoryEstimate(0, 0.0).padded(side) == side
