"""Owns folding batch normalisation into the preceding convolution, for inference."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wsi_seg.models.trial import on_first_side, trial_pass

# Largest change of a logit, as a fraction of the largest logit, that counts as rounding.
_TOLERANCE = 1e-3

# Side of the noise image for the comparison, in pixels.
_SIDE = 64


def fuse_batch_norms(network: nn.Module, in_channels: int, tile_px: int = _SIDE) -> nn.Module:
    """Copy a network and fold its batch norms, or only copy it if that changes the output.

    Which norm follows which convolution is recorded in a forward pass, not guessed from names. The
    outputs of both networks are compared on noise.

    Parameters
    ----------
    network
        Network in eval mode, float32; it is not modified.
    in_channels
        Channels of the input.
    tile_px
        Side of the input in pixels, for networks that do not accept a small one.

    Raises
    ------
    ConfigError
        If the network does not accept such images.
    """
    return on_first_side(
        lambda side: _fused(network, in_channels, side),
        _SIDE,
        tile_px,
        expected="expected tiles as the model was trained with",
    )


def _fused(network: nn.Module, in_channels: int, side: int) -> nn.Module:
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, in_channels, side, side, generator=generator).to(device)
    copied = copy.deepcopy(network)
    with trial_pass():
        pairs, expected = _pairs(copied, noise)
        for conv, norm in pairs:
            _fold(copied, conv, norm)
        found = copied(noise) if pairs else expected
    largest = float(expected.abs().max())
    same = float((found - expected).abs().max()) <= _TOLERANCE * max(largest, 1e-6)
    return copied if same else copy.deepcopy(network)


def _pairs(network: nn.Module, noise: torch.Tensor) -> tuple[list[tuple[str, str]], torch.Tensor]:
    """Return pairs of a convolution and the norm on its output, by name, and the network's output.

    Modules that are called more than once are left out.
    """
    outputs: list[tuple[str, torch.Tensor]] = []
    found: list[tuple[str, str]] = []
    calls: list[str] = []

    def convolved(name: str, output: torch.Tensor) -> None:
        outputs.append((name, output))
        calls.append(name)

    def normalised(name: str, seen: torch.Tensor) -> None:
        calls.append(name)
        found.extend((conv, name) for conv, output in outputs if output is seen)

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hook = module.register_forward_hook(lambda _, __, out, name=name: convolved(name, out))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            hook = module.register_forward_pre_hook(
                lambda _, args, name=name: normalised(name, args[0])
            )
        else:
            continue
        hooks.append(hook)
    expected: torch.Tensor = network(noise)
    for hook in hooks:
        hook.remove()
    once = [pair for pair in found if calls.count(pair[0]) == calls.count(pair[1]) == 1]
    return once, expected


def _fold(network: nn.Module, conv: str, norm: str) -> None:
    """Fold a batch norm into a convolution, keeping the norm's own dropout and activation."""
    layer: Any = network.get_submodule(conv)
    old: Any = network.get_submodule(norm)
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, old.running_mean, old.running_var, old.eps, old.weight, old.bias
    )
    # timm's norm layers include an activation.
    parts = [getattr(old, name, None) for name in ("drop", "act")]
    rest = nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))
    parent, _, child = norm.rpartition(".")
    setattr(network.get_submodule(parent), child, rest)
