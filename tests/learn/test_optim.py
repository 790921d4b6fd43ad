import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from wsi_seg.config import OptimizerConfig, ScheduleConfig
from wsi_seg.learn.optim import build_optimizer, build_schedule

STEPS = 40


def trace(name):
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerConfig(lr=0.1))
    schedule = build_schedule(optimizer, ScheduleConfig(name=name), lr=0.1, steps=STEPS)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_constant_and_cosine():
    assert trace("constant") == [0.1] * STEPS
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=0.1)
    schedule = CosineAnnealingLR(optimizer, T_max=STEPS)
    expected = []
    for _ in range(STEPS):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert trace("cosine") == pytest.approx(expected)


def test_one_cycle_rises_for_a_tenth_and_ends_near_nothing():
    rates = trace("one_cycle")
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates.index(max(rates)) <= STEPS // 10
    assert rates[-1] < 0.001
    assert min(rates) > 0


def test_frozen_weights_are_left_out():
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(requires_grad=False)
    groups = build_optimizer(network, OptimizerConfig()).param_groups
    assert [p is network.weight for group in groups for p in group["params"]] == [True]
