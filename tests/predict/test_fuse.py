"""Folding batch norms does not change a network's output."""

import copy

import pytest
import torch
from torch import nn

from wsi_seg.models import NetworkSpec, build_network
from wsi_seg.predict.fuse import fuse_batch_norms


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def lived_in(network):
    """Set statistics as after training, because initial ones would hide mistakes."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet-b0", "mobilenet_v2"])
def test_normalisation_is_folded_and_nothing_else_changes(encoder):
    network = lived_in(build_network(NetworkSpec("Unet", encoder, 3, 2)))
    before = copy.deepcopy(network.state_dict())
    fast = fuse_batch_norms(network, 3)
    assert norms(fast) < norms(network) / 4
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected, found = network(images), fast(images)
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


class Twice(nn.Module):
    """One convolution whose output is used twice: folding would change the second use."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class Shared(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.a(x)) + self.norm(self.b(x))


@pytest.mark.parametrize("network", [Twice(), Shared(), nn.Conv2d(3, 1, 1)])
def test_a_network_whose_output_would_change_is_not_fused(network):
    kept = fuse_batch_norms(lived_in(network), 3)
    assert norms(kept) == norms(network)
    assert kept is not network


def test_threads_are_as_many_as_before():
    threads = torch.get_num_threads()
    seen = []
    network = lived_in(build_network(NetworkSpec("Unet", "resnet18", 3, 1)))
    network.encoder.conv1.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    fuse_batch_norms(network, 3)
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads
