"""Owns folding batch normalisation into the convolution before it, for inference only."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Largest change of a logit, as a share of the largest logit, that is put down to rounding.
_TOLERANCE = 1e-3

# Side of the picture of noise that is tried.
_SIDE = 64


def fused(network: nn.Module, in_channels: int) -> nn.Module:
    """Copy of a network in eval mode with fewer layers, or as it is where that changes it.

    Which normalisation follows which convolution is seen in a forward pass, not guessed from
    names; whether the copy computes the same is tried on noise.

    Parameters
    ----------
    network
        In eval mode, float32; it is not changed.
    in_channels
        Channels of its images.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, in_channels, _SIDE, _SIDE, generator=generator).to(device)
    copied = copy.deepcopy(network)
    with torch.inference_mode():
        pairs = list(_pairs(copied, noise))
        expected = copied(noise)
    if not pairs:
        return copied
    named = dict(copied.named_modules())
    for conv, norm in pairs:
        _replace(copied, conv, fuse_conv_bn_eval(named[conv], named[norm]))
        _replace(copied, norm, _rest(named[norm]))
    with torch.inference_mode():
        found = copied(noise)
    largest = float(expected.abs().max())
    same = float((found - expected).abs().max()) <= _TOLERANCE * max(largest, 1e-6)
    return copied if same else copy.deepcopy(network)


def _pairs(network: nn.Module, noise: torch.Tensor) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the normalisations that take their outputs, each used once."""
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
    network(noise)
    for hook in hooks:
        hook.remove()
    return (pair for pair in found if calls.count(pair[0]) == calls.count(pair[1]) == 1)


def _rest(norm: nn.Module) -> nn.Module:
    """Keep what a normalisation does besides: timm's have an activation of their own."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    return nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
