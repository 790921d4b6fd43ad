"""Owns what a network takes in memory, found out before its weights are loaded."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from wsi_seg.models.network import NetworkSpec, blank_network, size_multiple
from wsi_seg.models.trial import on_first_side, trial_pass

# Side of the image that goes through the network; a multiple of every reduction.
TRIAL_PX = 128

# Tensors of the largest layer's size that are alive at once: measured 2 to 5.
_ALIVE = 6


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Size of a network.

    Parameters
    ----------
    parameters
        Number of its values, buffers included.
    values_per_px
        Values alive at once in a forward pass, for each pixel of the image; an upper estimate.
    multiple
        Pixels that the sides of its images are padded to a multiple of.
    """

    parameters: int
    values_per_px: float
    multiple: int = 1

    def padded(self, side: int) -> int:
        """Side of what the network gets for a tile, in pixels.

        Examples
        --------
        >>> MemoryEstimate(parameters=0, values_per_px=0.0, multiple=32).padded(100)
        128
        """
        return side + -side % self.multiple


@lru_cache
def estimate_memory(spec: NetworkSpec, tile_px: int = TRIAL_PX) -> MemoryEstimate:
    """Note the shapes of what the layers of a network give for a tile, or a smaller image.

    Not on torch's meta device, where encoders that read numbers off tensors while they are built
    (mit_b0) cannot be built.

    Parameters
    ----------
    spec
        The network.
    tile_px
        Side of its tiles. Where it is small, each pixel takes much more: layers give one pixel at
        least. Where it is large, it is tried if the network does not take a smaller image.

    Raises
    ------
    ConfigError
        If it does not take such tiles.
    """
    with torch.random.fork_rng(devices=[]):
        network = blank_network(spec).eval()
    multiple = size_multiple(network)
    small, tile = (side + -side % multiple for side in (min(tile_px, TRIAL_PX), tile_px))
    return on_first_side(
        lambda side: measure_network(network, spec.in_channels, side)[0],
        small,
        tile,
        expected="expected tiles as the model was trained with; leave out --tile",
    )


def measure_network(
    network: nn.Module, in_channels: int, side: int
) -> tuple[MemoryEstimate, tuple[int, ...]]:
    """Run a network once on an image of zeros, and note the shapes of what its layers give.

    Parameters
    ----------
    network
        In eval mode.
    in_channels, side
        Shape of the image.

    Returns
    -------
    MemoryEstimate
        What it takes.
    tuple[int, ...]
        Shape of what it gives; empty where that is not a tensor.
    """
    outputs: list[int] = []
    kept: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: outputs.extend(_sizes(out)))
        for module in network.modules()
        if not list(module.children())
    ]
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, nn.Module):
        hooks.append(encoder.register_forward_hook(lambda _, __, out: kept.extend(_sizes(out))))
    values = [*network.parameters(), *network.buffers()]
    device = values[0].device if values else torch.device("cpu")
    try:
        with trial_pass():
            found = network(torch.zeros(1, in_channels, side, side, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    outputs.extend(_sizes(found))
    estimate = estimate_of(
        sum(value.numel() for value in values),
        max(outputs, default=0),
        side,
        kept=sum(kept),
        multiple=size_multiple(network),
    )
    return estimate, tuple(found.shape) if isinstance(found, torch.Tensor) else ()


def estimate_of(
    parameters: int, largest: int, side: int, *, kept: int = 0, multiple: int = 1
) -> MemoryEstimate:
    """Estimate from what was seen in a pass.

    Parameters
    ----------
    parameters
        Number of the network's values.
    largest
        Values of the largest output of any layer.
    side
        Of the image.
    kept
        Values that are alive from the encoder to the decoder, where that is known.
    multiple
        See `MemoryEstimate`.
    """
    return MemoryEstimate(parameters, (_ALIVE * largest + kept) / side**2, multiple)


def _sizes(output: object) -> list[int]:
    """Sizes of a module's outputs."""
    if isinstance(output, torch.Tensor):
        return [output.numel()]
    parts = output if isinstance(output, list | tuple) else ()
    return [size for part in parts for size in _sizes(part)]
