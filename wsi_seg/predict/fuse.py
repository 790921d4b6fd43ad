"""Owns folding batch normalisation into the convolution before it, for inference only."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wsi_seg.models.trial import on_first_side, trial_pass

# Largest change of a logit, as a share of the largest logit, that is put down to rounding.
_TOLERANCE = 1e-3

# Side of the image of noise that is tried.
_SIDE = 64


def fused(network: nn.Module, in_channels: int, tile_px: int = _SIDE) -> nn.Module:
    """Copy of a network in eval mode with fewer layers, or as it is where that changes it.

    Which normalisation follows which convolution is seen in a forward pass, not guessed from
    names; whether the copy computes the same is tried on noise.

    Parameters
    ----------
    network
        In eval mode, float32; it is not changed.
    in_channels
        Channels of its images.
    tile_px
        Side of its images, which is tried where the network does not take a tiny one.

    Raises
    ------
    ConfigError
        If it does not take such images.
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
    """Names of convolutions and of the normalisations that take their outputs, each used once.

    Also returns what the network gives for the noise.
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
    """Let a convolution normalise as well; of the normalisation stays what it does besides."""
    layer: Any = network.get_submodule(conv)
    old: Any = network.get_submodule(norm)
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, old.running_mean, old.running_var, old.eps, old.weight, old.bias
    )
    # timm's normalisations have an activation of their own.
    parts = [getattr(old, name, None) for name in ("drop", "act")]
    rest = nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))
    parent, _, child = norm.rpartition(".")
    setattr(network.get_submodule(parent), child, rest)
