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

# Share of the time that another batch size may save; on an H100 and an H200 it was less.
_GAIN = 0.05

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
    predictor: Warmable, tile_px: int, largest: int, *, tiles: int
) -> tuple[int, dict[int, float]]:
    """Faster of two batch sizes, measured on CUDA where enough tiles are planned.

    It may differ from run to run, so a run measures once and keeps to what it found: libraries
    choose kernels by batch size, and those round differently. They load kernels for each size,
    which takes seconds: the smaller one is tried only where it can save more than that.

    Parameters
    ----------
    predictor
        Not compiled, or it would be for every size.
    tile_px
        Side of a tile.
    largest
        Most tiles per forward pass.
    tiles
        Tiles that will be predicted; 0 measures ``largest`` alone.

    Returns
    -------
    tuple[int, dict[int, float]]
        Tiles per forward pass, and tiles per second by size. On a CPU ``largest``, and nothing
        measured: there all sizes are about as fast.
    """
    if predictor.device.type != "cuda":
        return largest, {}
    rate, loading = _rate(predictor, largest, tile_px)
    rates = {largest: rate}
    smaller = max(1, largest // 4)
    if smaller < largest and tiles / rate * _GAIN > loading:
        rates[smaller], _ = _rate(predictor, smaller, tile_px)
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


def _rate(predictor: Warmable, count: int, tile_px: int) -> tuple[float, float]:
    """Tiles per second of the fastest of some passes, and seconds of the first one.

    The first one loads kernels.
    """
    loading = predictor.warm_up(count, tile_px)
    seconds = [predictor.warm_up(count, tile_px)]
    while len(seconds) < _PASSES and sum(seconds) < _SECONDS:
        seconds.append(predictor.warm_up(count, tile_px))
    return count / max(min(seconds), 1e-9), loading
