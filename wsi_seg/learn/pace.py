"""Owns the pace of a run: its precision, and how its learning rate keeps to the time there is."""

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from wsi_seg.predict.device import pick_precision

# Steps after which the time of one is known well enough to plan with.
MEASURED_AFTER = 5


def training_precision(name: str, device: torch.device) -> str:
    """``fp32`` or ``bf16`` for training; ``auto`` is bf16 where that is faster.

    A CPU that has bf16 but no AMX takes longer with it: 1.25 times the time of a step.
    """
    if name == "auto" and device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        return "fp32"
    return pick_precision(name, device)


def steps_left(limit_minutes: float, spent_seconds: float, steps: int) -> float:
    """Return the number of steps that still fit into a time limit, at the pace of those done.

    Parameters
    ----------
    limit_minutes
        Of the whole run.
    spent_seconds
        So far, waiting and validation included.
    steps
        Done in that time, above 0.
    """
    return (60 * limit_minutes - spent_seconds) * steps / spent_seconds


def end_in(schedule: LRScheduler, steps: float) -> None:
    """Make a one-cycle schedule end in so many steps from now.

    To be called between any two steps: it goes through what is left of the same curve in longer
    strides, or in shorter ones where time was thought to be shorter. Other schedules are left
    alone.
    """
    if not isinstance(schedule, OneCycleLR):
        return
    ahead = schedule.total_steps - 1 - schedule.last_epoch
    if steps != ahead:
        # Its curve takes any real number.
        schedule.last_epoch += ahead / max(steps, 1.0) - 1  # type: ignore[assignment]
