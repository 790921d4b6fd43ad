"""Owns estimating the memory of a network from the layer outputs of a trial pass."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from wsi_seg.models.network import NetworkSpec, blank_network, size_multiple
from wsi_seg.models.trial import on_first_side, trial_pass

# Side of the image for the trial pass; a multiple of the reduction of every encoder.
TRIAL_PX = 128

# Tensors of the size of the largest output that exist at once; 2 to 5 were measured.
_LIVE_TENSORS = 6


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory use of a network.

    Parameters
    ----------
    parameters
        Number of values of parameters and buffers.
    values_per_px
        Upper estimate of the values that exist at once in a forward pass, per pixel of the image.
    multiple
        The sides of images are padded to a multiple of this, in pixels.
    """

    parameters: int
    values_per_px: float
    multiple: int = 1

    def padded(self, side: int) -> int:
        """Return the side of the network's input for a tile, in pixels.

        Examples
        --------
        >>> MemoryEstimate(parameters=0, values_per_px=0.0, multiple=32).padded(100)
        128
        """
        return side + -side % self.multiple


@lru_cache
def estimate_memory(spec: NetworkSpec, tile_px: int = TRIAL_PX) -> MemoryEstimate:
    """Estimate memory from the layer outputs for a tile, or for a smaller image.

    This does not use torch's meta device, on which some encoders (mit_b0) cannot be built because
    they read values of tensors.

    Parameters
    ----------
    spec
        The network.
    tile_px
        Side of its tiles, in pixels. A small tile needs more memory per pixel, because outputs have
        at least one pixel. A large tile is only run if the network does not accept a smaller image.

    Raises
    ------
    ConfigError
        If the network does not accept such tiles.
    """
    with torch.random.fork_rng(devices=[]):
        network = blank_network(spec).eval()
    multiple = size_multiple(network)
    small, tile = (side + -side % multiple for side in (min(tile_px, TRIAL_PX), tile_px))
    return on_first_side(
        lambda side: measure_network(network, spec.in_channels, side)[0],
        small,
        tile,
        expected="expected the tile of the training; leave out --tile",
    )


def measure_network(
    network: nn.Module, in_channels: int, side: int
) -> tuple[MemoryEstimate, tuple[int, ...]]:
    """Run a network once on zeros, and record the sizes of its layer outputs.

    Parameters
    ----------
    network
        Network in eval mode.
    in_channels, side
        Channels, and side in pixels, of the image.

    Returns
    -------
    MemoryEstimate
        Memory use.
    tuple[int, ...]
        Shape of the output; empty if it is not a tensor.
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
    """Compute the estimate from the sizes in a trial pass.

    Parameters
    ----------
    parameters
        Number of values of the network.
    largest
        Number of values of the largest layer output.
    side
        Side of the image, in pixels.
    kept
        Number of values kept from the encoder for the decoder, if known.
    multiple
        See `MemoryEstimate`.
    """
    return MemoryEstimate(parameters, (_LIVE_TENSORS * largest + kept) / side**2, multiple)


def _sizes(output: object) -> list[int]:
    """Return the numbers of values of a module's outputs."""
    if isinstance(output, torch.Tensor):
        return [output.numel()]
    parts = output if isinstance(output, list | tuple) else ()
    return [size for part in parts for size in _sizes(part)]
