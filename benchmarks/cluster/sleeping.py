"""A network that only sleeps; client, scheduler and workers import it by this name."""

import time
from dataclasses import dataclass

import torch

from wsi_seg.inference.options import InferOptions
from wsi_seg.predict.ensemble import Member
from wsi_seg.predict.predictor import PROBABILITY_STEPS


class SleepingPredictor:
    """Takes a given time for a batch, whatever it holds."""

    channels = 1
    device = torch.device("cpu")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Half a probability everywhere, ``(B, 1, T, T)``."""
        time.sleep(self.seconds)
        shape = (len(tiles), 1, *tiles.shape[1:3])
        return torch.full(shape, PROBABILITY_STEPS // 2, dtype=torch.int32)


@dataclass(frozen=True, slots=True)
class LoadSleeping:
    """Makes the predictor of any member; equal where it sleeps as long, so it is kept."""

    seconds: float

    def __call__(self, member: Member, options: InferOptions, compiled: bool) -> SleepingPredictor:
        """See `runner.Load`."""
        return SleepingPredictor(self.seconds)
