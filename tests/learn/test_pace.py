import pytest
import torch
from torch import nn

from wsi_seg.config import ScheduleConfig
from wsi_seg.learn.optim import build_schedule
from wsi_seg.learn.pace import end_in, steps_left, training_precision


def rates(*, planned, fits, expected=lambda step, fits: fits - step):
    """Return the learning rates of a run with an expected number of remaining steps."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    schedule = build_schedule(optimizer, ScheduleConfig(), epochs=1, steps_per_epoch=planned)
    assert schedule is not None
    found = []
    for step in range(min(planned, fits)):
        if step > 5:
            end_in(schedule, min(expected(step, fits), planned - step))
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_run_that_fits_keeps_its_schedule():
    assert rates(planned=100, fits=100) == rates(planned=100, fits=1000)


@pytest.mark.parametrize("fits", [30, 50, 99])
def test_a_shorter_run_goes_through_the_whole_cycle(fits):
    found = rates(planned=400, fits=fits)
    assert found[-1] < 0.05 * max(found)
    assert max(found) > 0.05
    peak = found.index(max(found))
    assert peak < 0.3 * fits
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_a_slow_start_neither_ends_the_cycle_early_nor_exceeds_it():
    found = rates(planned=100, fits=100, expected=lambda step, _: 20 if step < 40 else 1000)
    assert len(found) == 100
    assert found[-1] < 0.05 * max(found)
    assert found[60:] == sorted(found[60:], reverse=True)


def test_other_schedules_are_not_changed():
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10)
    end_in(schedule, 1)
    assert schedule.last_epoch == 0


def test_remaining_steps_follow_from_the_pace_so_far():
    assert steps_left(2.0, 60.0, 30) == pytest.approx(30)
    assert steps_left(1.0, 60.0, 30) == 0


def test_bf16_is_used_where_it_is_faster(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert training_precision("auto", cpu) == "fp32"
    assert training_precision("bf16", cpu) == "bf16"
