"""Owns building optimisers and learning-rate schedules from a recipe."""

from typing import Any

import pytorch_optimizer
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from wsi_seg.config import OptimizerConfig, ScheduleConfig

# Interval and step size of lookahead; defaults of its authors.
_LOOKAHEAD_STEPS, _LOOKAHEAD_ALPHA = 5, 0.5

# Fraction of the learning rate at the start of the warm-up.
_WARMUP_START = 1e-3


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build the optimiser, with the weights of ``encoder`` as a separate parameter group.

    Weights of a frozen encoder are included, because it may be unfrozen later.
    """
    encoder = [p for name, p in network.named_parameters() if "encoder." in name]
    inside = {id(p) for p in encoder}
    rest = [p for p in network.parameters() if id(p) not in inside]
    rates = {"encoder": config.encoder_lr or config.lr, "rest": config.lr}
    groups = [
        {"params": params, "lr": rates[name]}
        for name, params in (("rest", rest), ("encoder", encoder))
        if params
    ]
    optimizer = _create(groups, config)
    if config.lookahead:
        _add_lookahead(optimizer)
    return optimizer


def _create(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    decay = config.weight_decay
    if config.name == "sgd":
        momentum = 0.9 if config.momentum is None else config.momentum
        return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, weight_decay=decay)
    given: dict[str, Any] = {"lr": config.lr, "weight_decay": decay}
    given |= {key: value for key in ("betas", "eps") if (value := getattr(config, key)) is not None}
    match config.name:
        case "adam":
            return torch.optim.Adam(groups, **given)
        case "adamw":
            return torch.optim.AdamW(groups, **given)
        case "radam":
            return torch.optim.RAdam(groups, decoupled_weight_decay=True, **given)
        case "adabelief":
            # Without rectification, so that the first steps use the full learning rate.
            return pytorch_optimizer.AdaBelief(groups, rectify=False, **given)
        case "ranger":
            return pytorch_optimizer.Ranger(groups, **given)
        case "lion":
            return pytorch_optimizer.Lion(groups, **given)


def _add_lookahead(optimizer: Optimizer) -> None:
    """Add lookahead to an optimiser, with a step hook.

    The slow weights are part of the optimiser's state, so they are saved and restored with it;
    pytorch-optimizer's wrapper keys them by tensor and cannot be resumed.
    """
    first = {p: p.detach().clone() for group in optimizer.param_groups for p in group["params"]}
    for group in optimizer.param_groups:
        group["lookahead_steps"] = 0

    def pull(taken: Optimizer, *_: object) -> None:
        with torch.no_grad():
            for group in taken.param_groups:
                group["lookahead_steps"] += 1
                for p in group["params"]:
                    _pull(taken.state[p], p, first, group["lookahead_steps"])

    optimizer.register_step_post_hook(pull)


def _pull(
    state: dict[str, Any], p: torch.Tensor, first: dict[torch.Tensor, torch.Tensor], steps: int
) -> None:
    if not state:
        return  # no gradient yet
    # Not before the first step, because optimisers initialise their state if it is empty.
    slow = state.setdefault("slow", first[p])
    if steps % _LOOKAHEAD_STEPS == 0:
        slow.lerp_(p, _LOOKAHEAD_ALPHA)
        p.copy_(slow)


def clip_gradients(network: nn.Module, config: OptimizerConfig) -> None:
    """Clip gradients in place: first adaptively per unit (AGC), then by their global norm.

    AGC leaves out the last layer, as its authors recommend.
    """
    if config.agc is not None:
        for name, p in network.named_parameters():
            if p.grad is not None and "head." not in name:
                p.grad = pytorch_optimizer.agc(p, p.grad, agc_clip_val=config.agc)
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)


def build_schedule(
    optimizer: Optimizer,
    config: ScheduleConfig,
    *,
    epochs: int,
    steps_per_epoch: int,
    keep_momentum: bool = False,
) -> LRScheduler | None:
    """Build the schedule to step after each optimiser step; None for ``plateau``.

    ``keep_momentum`` keeps that of the optimiser, which ``one_cycle`` otherwise replaces.
    """
    if config.name == "plateau":
        return None
    if config.name == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        # One more, because torch steps the schedule after the last optimiser step, too.
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=rates,
            total_steps=epochs * steps_per_epoch + 1,
            pct_start=config.option("rise"),
            cycle_momentum=not keep_momentum,
        )
    warm = round(config.option("warmup_epochs") * steps_per_epoch)
    span = config.option("epochs") if config.name not in ("constant", "cosine") else 0.0
    if config.name == "cosine":
        span = config.epochs or max(epochs - warm / steps_per_epoch, 1 / steps_per_epoch)
    main = _main_schedule(optimizer, config, max(1, round(span * steps_per_epoch)))
    if not warm:
        return main
    rising = lr_scheduler.LinearLR(optimizer, start_factor=_WARMUP_START, total_iters=warm)
    return lr_scheduler.SequentialLR(optimizer, [rising, main], milestones=[warm])


def _main_schedule(optimizer: Optimizer, config: ScheduleConfig, span: int) -> LRScheduler:
    """Build the schedule without warm-up; ``span`` is its period in steps."""
    match config.name:
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(
                optimizer, T_max=span, eta_min=config.option("min_lr")
            )
        case "warm_restarts":
            return lr_scheduler.CosineAnnealingWarmRestarts(
                optimizer,
                T_0=span,
                T_mult=int(config.option("multiply")),
                eta_min=config.option("min_lr"),
            )
        case "cyclic":
            rates = [group["lr"] for group in optimizer.param_groups]
            return lr_scheduler.CyclicLR(
                optimizer,
                base_lr=config.option("min_lr"),
                max_lr=rates,
                step_size_up=max(1, span // 2),
                step_size_down=max(1, span - span // 2),
                cycle_momentum=False,
            )
        case "step":
            return lr_scheduler.StepLR(optimizer, step_size=span, gamma=config.option("factor"))
        case _:
            return lr_scheduler.ConstantLR(optimizer, factor=1.0)


def build_plateau(optimizer: Optimizer, config: ScheduleConfig) -> ReduceLROnPlateau | None:
    """Build the ``plateau`` schedule, which is stepped after each validation; None for others."""
    if config.name != "plateau":
        return None
    return ReduceLROnPlateau(
        optimizer,
        mode="max",
        factor=config.option("factor"),
        patience=int(config.option("patience")),
        threshold=config.option("threshold"),
        threshold_mode="abs",
        min_lr=config.option("min_lr"),
    )
