from typing import Any

import pytest
import torch
from torch import nn

from tests.cards import make_card
from wsi_seg.config import TrainConfig
from wsi_seg.learn.average import (
    WeightAverage,
    build_average,
    choose_soup,
    first_averaged_epoch,
)
from wsi_seg.models import build_network, save_checkpoint


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
    average.update_parameters(network(1.0))  # the first is copied
    average.update_parameters(network(2.0))
    kept = min(0.9, 2 / 11)  # weight of the first, after one step
    expected = kept * 1.0 + (1 - kept) * 2.0
    assert average.module[0].weight.flatten().tolist() == pytest.approx([expected] * 2)
    assert average.module[1].running_mean.tolist() == pytest.approx([expected] * 2)


def test_swa_is_a_mean_and_counters_are_not_averaged():
    average: Any = WeightAverage(network(0.0), None)
    for value in (1.0, 2.0, 6.0):
        average.update_parameters(network(value))
    assert average.module[0].weight.flatten().tolist() == pytest.approx([3.0, 3.0])
    assert average.module[1].num_batches_tracked.item() == 60
    assert not any(p.requires_grad for p in average.parameters())


@pytest.fixture
def soup_members(tmp_path):
    """Return a function that writes checkpoints whose weights are all one value."""

    def write(*values):
        paths = []
        for number, value in enumerate(values):
            card = make_card(encoder="tu-mobilenetv3_small_050")
            made = build_network(card.spec)
            with torch.no_grad():
                for parameter in made.parameters():
                    parameter.fill_(value)
            paths.append(tmp_path / f"epoch_{number}.safetensors")
            save_checkpoint(paths[-1], made, card)
        return paths

    return write


def test_a_soup_keeps_members_that_do_not_lower_the_score(soup_members):
    """Score -|mean - 5|: 4 is first, 2 lowers it, 6 raises it, 5 keeps it, 9 lowers it."""
    paths = soup_members(4.0, 2.0, 6.0, 5.0, 9.0, 5.0)
    tried = []

    def score(made):
        value = next(made.parameters()).detach().max().item()
        tried.append(value)
        return -abs(value - 5)

    chosen, best = choose_soup(paths, score)
    assert tried == pytest.approx([4, 3, 5, 5, 6, 5])
    assert [path.stem for path in chosen] == ["epoch_0", "epoch_2", "epoch_3", "epoch_5"]
    assert best == 0


def test_a_soup_is_never_worse_than_its_best_member(soup_members):
    paths = soup_members(5.0, 1.0, 2.0)

    def score(made):
        return -abs(next(made.parameters()).detach().max().item() - 5)

    assert choose_soup(paths, score) == ((paths[0],), 0)


def test_the_average_is_that_of_the_recipe():
    assert build_average(network(0.0), TrainConfig(ema=None)) is None
    assert first_averaged_epoch(TrainConfig(epochs=8, ema=0.99)) == 0
    assert first_averaged_epoch(TrainConfig(epochs=8, swa_from=0.75)) == 6
    assert first_averaged_epoch(TrainConfig(epochs=1, swa_from=0.99)) == 0


def test_a_moving_average_forgets_the_initial_weights_in_a_short_run():
    average: Any = WeightAverage(network(0.0), 0.999)
    average.update_parameters(network(0.0))
    for _ in range(30):
        average.update_parameters(network(1.0))
    assert average.module[0].weight.min() > 0.95
