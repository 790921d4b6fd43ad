"""Owns averages of weights: over the steps of a run, and over the checkpoints of one."""

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
    """Average of a network's weights: a moving one (EMA), or with equal parts (SWA).

    The moving one forgets faster at first: step ``n`` keeps ``(1 + n) / (10 + n)`` at most, or a
    short run would be judged by the weights that it began with.

    BatchNorm's statistics are averaged like weights; whole numbers such as its counters, which
    have no mean, are those of the last step.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        super().__init__(
            network, multi_avg_fn=None if decay is None else self._move, use_buffers=True
        )
        self._decay = decay or 0.0
        self.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def _move(self, kept: _Tensors, present: _Tensors, count: torch.Tensor | int) -> None:
        """Move floating-point tensors towards the present ones; others are copied later."""
        if kept[0].is_floating_point():
            steps = int(count)
            part = 1 - min(self._decay, (1 + steps) / (10 + steps))
            torch._foreach_lerp_(kept, present, part)

    def update_parameters(self, model: nn.Module) -> None:
        """Take the network's present weights in."""
        super().update_parameters(model)
        for kept, present in zip(self.module.buffers(), model.buffers(), strict=True):
            if not kept.is_floating_point():
                kept.copy_(present)


def build_average(network: nn.Module, config: TrainConfig) -> WeightAverage | None:
    """Average that the recipe asks for."""
    if config.ema is None and config.swa_from is None:
        return None
    return WeightAverage(network, config.ema)


def first_averaged_epoch(config: TrainConfig) -> int:
    """Epoch, counted from 0, in which averaging begins."""
    return (
        0
        if config.swa_from is None
        else min(int(config.swa_from * config.epochs), config.epochs - 1)
    )


def choose_soup(
    paths: Sequence[Path], score: Callable[[nn.Module], float]
) -> tuple[tuple[Path, ...], float]:
    """Choose the checkpoints whose mean is worth most: a greedy soup (Wortsman et al., ICML 2022).

    Each is added in turn, and stays unless the score of the mean falls.

    Parameters
    ----------
    paths
        Checkpoints of one run, best first; at least one.
    score
        How good a network is, the higher the better.

    Returns
    -------
    chosen : tuple of Path
        The first one, and those that stayed.
    score : float
        That of their mean.

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
    """Write one checkpoint whose weights are the mean of those of several.

    They must come from one run, because networks trained independently are not in one
    basin of the loss. Whole numbers, such as BatchNorm's counters, are those of the first.

    Parameters
    ----------
    paths
        At least one.
    out
        Ends with ``.safetensors``.
    scores
        Of the mean, for its card; None where it was not scored.

    Raises
    ------
    CheckpointError
        If they are not of one architecture, or there are none.
    """
    network, card = _mean(paths)
    training = card.training | {"averaged": [path.name for path in paths]}
    save_checkpoint(out, network, replace(card, scores=dict(scores or {}), training=training))


def _mean(paths: Sequence[Path]) -> tuple[nn.Module, ModelCard]:
    """Network with the mean of the weights, and the card of the first."""
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
