"""Owns how many tiles go through a network at a time."""

from collections.abc import Mapping
from typing import Protocol

import torch

from wsi_seg.predict.device import Device

# Pixels in one forward pass: enough to fill the device, small against its memory.
_BATCH_PX = {"cpu": 2**20, "cuda": 2**24}

# Smaller tiles take as long and as much memory as these.
_SMALLEST_PX = 32

# Passes of one size that are timed at most, and after how many seconds no more are.
_PASSES, _SECONDS = 8, 0.1

# Rates that differ by no more than this share are taken for equal.
_TOLERANCE = 0.01


class Warmable(Protocol):
    """What is measured: a `Predictor` or a `MemberPredictor`."""

    device: torch.device

    def warm_up(self, batch: int, tile_px: int) -> float:
        """Run one pass on random tiles; return the seconds it took."""


def batch_for(device: Device, tile_px: int) -> int:
    """Tiles per forward pass that suit a kind of device, at most; memory may allow fewer."""
    return max(1, _BATCH_PX[torch.device(device.name).type] // max(tile_px, _SMALLEST_PX) ** 2)


def best_batch(
    predictor: Warmable, tile_px: int, largest: int, *, fixed: bool = False
) -> tuple[int, dict[int, float]]:
    """Faster of two batch sizes, measured on CUDA in well under a second.

    It may differ from run to run, so a run measures once and keeps to what it found: libraries
    choose kernels by batch size, and those round differently.

    Parameters
    ----------
    predictor
        Not compiled, or it would be for every size.
    tile_px
        Side of a tile.
    largest
        Most tiles per forward pass.
    fixed
        Measure ``largest`` alone.

    Returns
    -------
    tuple[int, dict[int, float]]
        Tiles per forward pass, and tiles per second by size. On a CPU ``largest``, and nothing
        measured: there all sizes are about as fast.
    """
    if predictor.device.type != "cuda":
        return largest, {}
    sizes = {largest} if fixed else {max(1, largest // part) for part in (1, 4)}
    rates = {count: _rate(predictor, count, tile_px) for count in sorted(sizes)}
    return fastest(rates), rates


def fastest(rates: Mapping[int, float]) -> int:
    """Largest batch within 1 % of the fastest: each batch has costs outside the network.

    Examples
    --------
    >>> fastest({16: 1458.0, 32: 1630.0, 64: 1621.0})
    64
    """
    enough = (1 - _TOLERANCE) * max(rates.values())
    return max(size for size, rate in rates.items() if rate >= enough)


def _rate(predictor: Warmable, count: int, tile_px: int) -> float:
    """Tiles per second of the fastest of some passes; the first one loads kernels."""
    seconds = [predictor.warm_up(count, tile_px)]
    while len(seconds) <= _PASSES and sum(seconds[1:]) < _SECONDS:
        seconds.append(predictor.warm_up(count, tile_px))
    return count / max(min(seconds), 1e-9)
