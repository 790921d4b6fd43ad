"""Owns fitting a run to its time limit, and its precision."""

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from wsi_seg.predict.device import pick_precision

# Number of steps after which the time per step is reliable.
MEASURED_AFTER = 5


def training_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16`` for training; ``auto`` is bf16 where that is faster.

    On a CPU with bf16 but without AMX, a bf16 step takes 1.25 times as long.
    """
    if name == "auto" and device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        return "fp32"
    return pick_precision(name, device)


def steps_left(limit_minutes: float, spent_seconds: float, steps: int) -> float:
    """Return the number of steps that still fit into a time limit, at the average pace so far.

    Parameters
    ----------
    limit_minutes
        Time limit of the whole run.
    spent_seconds
        Time spent so far, including waiting and validation.
    steps
        Number of steps in that time, above 0.
    """
    return (60 * limit_minutes - spent_seconds) * steps / spent_seconds


def end_in(schedule: LRScheduler, steps: float) -> None:
    """Make a one-cycle schedule end in this many steps from now.

    Call it between any two steps: the rest of the curve is traversed in larger or smaller
    increments. Other schedules are not changed.
    """
    if not isinstance(schedule, OneCycleLR):
        return
    ahead = schedule.total_steps - 1 - schedule.last_epoch
    if steps != ahead:
        # The curve is defined for any real number.
        schedule.last_epoch += ahead / max(steps, 1.0) - 1  # type: ignore[assignment]
