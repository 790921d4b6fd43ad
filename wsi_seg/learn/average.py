"""Owns weight averaging: EMA and SWA during a run, and model soups of its checkpoints."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from wsi_seg.config import TrainConfig
from wsi_seg.errors import CheckpointError
from wsi_seg.models import ModelCard, load_checkpoint, read_card, save_checkpoint

_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class WeightAverage(AveragedModel):
    """Average of a network's weights: exponential moving average (EMA) or equal weights (SWA).

    The decay of the EMA is at most ``(1 + n) / (10 + n)`` at step ``n``, so that a short run is not
    dominated by its initial weights.

    The statistics of BatchNorm are averaged like weights; integer buffers, such as its counter, are
    those of the last step.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        super().__init__(
            network, multi_avg_fn=None if decay is None else self._move, use_buffers=True
        )
        self._decay = decay or 0.0
        self.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def _move(self, average: _Tensors, current: _Tensors, count: torch.Tensor | int) -> None:
        """Move floating-point tensors towards the current ones; others are copied later."""
        if average[0].is_floating_point():
            steps = int(count)
            part = 1 - min(self._decay, (1 + steps) / (10 + steps))
            torch._foreach_lerp_(average, current, part)

    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the network's current weights."""
        super().update_parameters(model)
        for average, current in zip(self.module.buffers(), model.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(current)


def build_average(network: nn.Module, config: TrainConfig) -> WeightAverage | None:
    """Build the weight average of a recipe; None if it has none."""
    if config.ema is None and config.swa_from is None:
        return None
    return WeightAverage(network, config.ema)


def first_averaged_epoch(config: TrainConfig) -> int:
    """Return the first epoch, from 0, whose weights are averaged."""
    return (
        0
        if config.swa_from is None
        else min(int(config.swa_from * config.epochs), config.epochs - 1)
    )


def choose_soup(
    paths: Sequence[Path], score: Callable[[nn.Module], float]
) -> tuple[tuple[Path, ...], float]:
    """Choose checkpoints to average by a greedy soup (Wortsman et al., ICML 2022).

    Checkpoints are added one by one, and kept unless the score of the mean falls.

    Parameters
    ----------
    paths
        Checkpoints of one run, best first; at least one.
    score
        Scores a network; higher is better.

    Returns
    -------
    chosen : tuple of Path
        The checkpoints that were kept, including the first.
    score : float
        Score of their mean.

    Raises
    ------
    CheckpointError
        See `average_checkpoints`.
    """
    chosen: tuple[Path, ...] = ()
    best = -math.inf
    for path in paths:
        found = score(_mean((*chosen, path))[0])
        if found >= best:
            chosen, best = (*chosen, path), found
    return chosen, best


def average_checkpoints(
    paths: Sequence[Path], out: Path, *, scores: Mapping[str, float] | None = None
) -> None:
    """Average the weights of several checkpoints, and write the result as a checkpoint.

    They must come from one run, because independently trained networks are in different basins of
    the loss. Integer buffers, such as BatchNorm's counter, are those of the first.

    Parameters
    ----------
    paths
        Checkpoints; at least one.
    out
        Path with suffix ``.safetensors``.
    scores
        Scores of the mean for its card; None if it was not scored.

    Raises
    ------
    CheckpointError
        If there are no checkpoints, or they have different architectures.
    """
    network, card = _mean(paths)
    training = card.training | {"averaged": [path.name for path in paths]}
    save_checkpoint(out, network, replace(card, scores=dict(scores or {}), training=training))


def _mean(paths: Sequence[Path]) -> tuple[nn.Module, ModelCard]:
    """Return a network with the mean of the weights, and the card of the first checkpoint."""
    if not paths:
        raise CheckpointError("got no checkpoints to average; expected at least one")
    network, card = load_checkpoint(paths[0])
    for path in paths[1:]:
        if read_card(path).spec != card.spec:
            raise CheckpointError(
                f"{path} and {paths[0]} hold different networks; expected checkpoints of one run"
            )
    sums = {n: t.double() for n, t in network.state_dict().items() if t.is_floating_point()}
    for path in paths[1:]:
        state = load_checkpoint(path)[0].state_dict()
        for name in sums:
            sums[name] += state[name].double()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name in sums:
                tensor.copy_(sums[name] / len(paths))
    return network, card
