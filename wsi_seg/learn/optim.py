"""Owns optimisers and learning-rate schedules by name."""

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from wsi_seg.config import OptimizerConfig, ScheduleConfig

# Share of a one-cycle run in which the learning rate rises.
_RISE = 0.1


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Optimiser of all weights that learn."""
    learning = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay)


def build_schedule(
    optimizer: Optimizer, config: ScheduleConfig, *, lr: float, steps: int
) -> LRScheduler:
    """Schedule that is advanced once after each of ``steps`` optimiser steps.

    Parameters
    ----------
    lr
        Highest learning rate.
    """
    if config.name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if config.name == "one_cycle":
        # torch's last value belongs to step ``total_steps - 1``; one more lets every step have one.
        return OneCycleLR(optimizer, max_lr=lr, total_steps=steps + 1, pct_start=_RISE)
    return LambdaLR(optimizer, lambda step: 1.0)
