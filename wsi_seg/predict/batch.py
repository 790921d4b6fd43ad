"""Owns choosing the batch size of inference."""

from collections.abc import Mapping
from typing import Protocol

import torch

from wsi_seg.predict.device import Device

# Pixels per forward pass: enough to keep the device busy, small compared with its memory.
_BATCH_PX = {"cpu": 2**20, "cuda": 2**24}

# Smaller tiles are no faster and take no less memory than tiles of this side.
_MIN_PX = 32

# Maximum number of timed passes per batch size, and the time in seconds after which to stop.
_PASSES, _SECONDS = 8, 0.1

# Fraction of the time that another batch size can save; it was less on an H100 and an H200.
_GAIN = 0.05

# Rates that differ by less than this fraction count as equal.
_TOLERANCE = 0.01


class Warmable(Protocol):
    """Interface for timing: a `Predictor` or a `MemberPredictor`."""

    device: torch.device

    def warm_up(self, batch: int, tile_px: int) -> float:
        """Run one forward pass on random tiles, and return its time in seconds."""


def batch_for(device: Device, tile_px: int) -> int:
    """Return the maximum useful batch size of a device; its memory may allow less."""
    return max(1, _BATCH_PX[torch.device(device.name).type] // max(tile_px, _MIN_PX) ** 2)


def best_batch(
    predictor: Warmable, tile_px: int, largest: int, *, tiles: int
) -> tuple[int, dict[int, float]]:
    """Return the faster of two batch sizes, measured on CUDA if there are enough tiles.

    The result may differ between runs, and kernels of other batch sizes round differently, so a run
    measures once and keeps the result. Loading the kernels of each size takes seconds: the smaller
    size is only measured if it can save more than that.

    Parameters
    ----------
    predictor
        Predictor that is not compiled, because compiling would be repeated for each size.
    tile_px
        Side of a tile, in pixels.
    largest
        Maximum batch size.
    tiles
        Number of tiles to predict; with 0 only ``largest`` is measured.

    Returns
    -------
    tuple[int, dict[int, float]]
        Batch size, and tiles per second by batch size. On a CPU, where all sizes are about equally
        fast, ``largest`` and an empty dictionary.
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
    """Return the largest batch size within 1 % of the fastest, for less overhead per tile.

    Examples
    --------
    >>> fastest({16: 1458.0, 32: 1630.0, 64: 1621.0})
    64
    """
    enough = (1 - _TOLERANCE) * max(rates.values())
    return max(size for size, rate in rates.items() if rate >= enough)


def _rate(predictor: Warmable, count: int, tile_px: int) -> tuple[float, float]:
    """Return tiles per second of the fastest pass, and seconds of the first (loading kernels)."""
    loading = predictor.warm_up(count, tile_px)
    seconds = [predictor.warm_up(count, tile_px)]
    while len(seconds) < _PASSES and sum(seconds) < _SECONDS:
        seconds.append(predictor.warm_up(count, tile_px))
    return count / max(min(seconds), 1e-9), loading
