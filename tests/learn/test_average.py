from typing import Any

import pytest
import torch
from torch import nn

from wsi_seg.config import TrainConfig
from wsi_seg.learn.average import WeightAverage, build_average, first_averaged_epoch


def network(value):
    made: Any = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    with torch.no_grad():
        for p in made.parameters():
            p.fill_(value)
        made[1].running_mean.fill_(value)
        made[1].num_batches_tracked.fill_(int(10 * value))
    return made


def test_a_moving_average_follows_its_definition():
    average: Any = WeightAverage(network(0.0), 0.9)
    average.update_parameters(network(1.0))  # the first is taken as it is
    average.update_parameters(network(2.0))
    kept = min(0.9, 2 / 11)  # of the first, after one step
    expected = kept * 1.0 + (1 - kept) * 2.0
    assert average.module[0].weight.flatten().tolist() == pytest.approx([expected] * 2)
    assert average.module[1].running_mean.tolist() == pytest.approx([expected] * 2)


def test_equal_parts_are_a_mean_and_counters_are_not_averaged():
    average: Any = WeightAverage(network(0.0), None)
    for value in (1.0, 2.0, 6.0):
        average.update_parameters(network(value))
    assert average.module[0].weight.flatten().tolist() == pytest.approx([3.0, 3.0])
    assert average.module[1].num_batches_tracked.item() == 60
    assert not any(p.requires_grad for p in average.parameters())


def test_what_the_recipe_asks_for():
    assert build_average(network(0.0), TrainConfig(ema=None)) is None
    assert first_averaged_epoch(TrainConfig(epochs=8, ema=0.99)) == 0
    assert first_averaged_epoch(TrainConfig(epochs=8, swa_from=0.75)) == 6
    assert first_averaged_epoch(TrainConfig(epochs=1, swa_from=0.99)) == 0


def test_a_moving_average_forgets_its_beginning_in_a_short_run():
    average: Any = WeightAverage(network(0.0), 0.999)
    average.update_parameters(network(0.0))
    for _ in range(30):
        average.update_parameters(network(1.0))
    assert average.module[0].weight.min() > 0.95
