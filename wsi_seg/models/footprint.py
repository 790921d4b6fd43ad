"""Owns what a network takes in memory, found out without computing or loading anything."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from wsi_seg.models.network import NetworkSpec, build_network

# Side of the picture that is followed through the network; a multiple of every reduction.
_SIDE = 256

# Tensors of the largest layer's size that are alive at once: measured 2 to 5.
_ALIVE = 6


@dataclass(frozen=True, slots=True)
class Footprint:
    """Size of a network.

    Parameters
    ----------
    parameters
        Number of its values, buffers included.
    values_per_px
        Values alive at once in a forward pass, for each px of the image; an upper estimate.
    """

    parameters: int
    values_per_px: float


@lru_cache
def footprint(spec: NetworkSpec) -> Footprint:
    """Follow shapes through a network on torch's meta device, which holds no data."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build_network(spec).eval()
    outputs: list[int] = []
    kept: list[int] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, out: outputs.extend(_sizes(out)))
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, nn.Module):
        encoder.register_forward_hook(lambda _, __, out: kept.extend(_sizes(out)))
    with torch.inference_mode():
        network(torch.empty(1, spec.in_channels, _SIDE, _SIDE, device="meta"))
    values = [*network.parameters(), *network.buffers()]
    return Footprint(
        parameters=sum(value.numel() for value in values),
        values_per_px=(_ALIVE * max(outputs) + sum(kept)) / _SIDE**2,
    )


def _sizes(output: object) -> list[int]:
    """Sizes of a module's outputs."""
    if isinstance(output, torch.Tensor):
        return [output.numel()]
    parts = output if isinstance(output, list | tuple) else ()
    return [size for part in parts for size in _sizes(part)]
