"""Recording the losses of patches, and repeating the worst."""

import csv

import pytest
import torch

from wsi_seg.data.dataset import EpochItems
from wsi_seg.learn.losses.pixels import Pixels
from wsi_seg.learn.patch_losses import PatchLosses
from wsi_seg.learn.sampler import patch_sampler
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.task import losses_of_patches
from wsi_seg.learn.train import train
from wsi_seg.progress import Silent
from wsi_seg.sampling.samplers import Layer


@pytest.fixture
def sampler(recipe_for):
    recipe = recipe_for()
    train = split_slides(recipe)[0].train
    return patch_sampler(train, recipe), [store.name for store in train]


def losses_of(sampler, items, replay):
    return PatchLosses(items, sampler[0], sampler[1], replay=replay)


def test_the_worst_patches_are_repeated_only_once(sampler):
    items = EpochItems(32)
    kept = losses_of(sampler, items, 0.125)
    losses = torch.zeros(32)
    losses[torch.tensor([3, 7, 20, 31])] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    kept.record(losses[:10])
    kept.record(losses[10:])
    counts, worst = kept.end(0)
    assert [patch.loss for patch in worst[:5]] == [4, 3, 2, 1, 0]
    draws = sampler[0].epoch(0)
    assert (worst[0].y, worst[0].x) == (draws.y[3], draws.x[3])
    assert worst[0].slide == sampler[1][draws.slide[3]]
    expected = {
        f"drawn_{layer.name.lower()}": (draws.layer == layer).sum()
        for layer in Layer
        if (draws.layer == layer).any()
    }
    assert counts == expected
    second = items.of(1)
    assert {3, 7, 20, 31} == {item for item in second.tolist() if item < 32}
    assert second[[0, 8, 16, 24]].tolist() == [3, 7, 20, 31]
    # The repeated patches are the worst; the worst of the others are repeated next.
    kept.start()
    losses = torch.arange(32.0)
    losses[[0, 8, 16, 24]] = 100.0
    kept.record(losses)
    counts, worst = kept.end(1)
    assert counts["drawn_again"] == 4
    assert worst[0].loss == 31
    assert {item for item in items.of(2).tolist() if item < 64} == {
        32 + n for n in (31, 30, 29, 28)
    }


def test_several_ranks_process_the_same_items_as_one(sampler):
    one, ranks = EpochItems(32), [EpochItems(32, rank=rank, ranks=2) for rank in (0, 1)]
    for items in (one, *ranks):
        items.repeats = (1, 5)
        items.set_epoch(1)
    shown = [list(items) for items in ranks]
    assert [item for pair in zip(*shown, strict=True) for item in pair] == list(one)
    # Losses gathered from ranks are in the same order.
    kept = losses_of(sampler, EpochItems(32), 0)
    kept.record(torch.tensor([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]))
    assert kept.state()["losses"] == [0, 1, 2, 3, 4, 5]


def test_the_loss_of_a_patch_does_not_depend_on_its_weight():
    logits = torch.tensor([0.0, 3.0, -3.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    label = torch.ones(3, 4, 4, dtype=torch.uint8)
    label[2] = 255
    weight = torch.tensor([0.5, 2.0, 1.0]).reshape(3, 1, 1)
    found = losses_of_patches(Pixels.of(logits, label, weight=weight))
    assert found.tolist() == pytest.approx([0.693147, 0.048587, 0.0], abs=1e-5)


def test_a_run_keeps_its_counts_and_its_worst_patches(recipe_for, tmp_path):
    train(recipe_for("sampling.replay=0.25"), tmp_path / "run", progress=Silent())
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["drawn_again"] or 0) for row in rows] == [0, 8, 8]
    assert all(float(row["drawn_objects"]) + float(row["drawn_tissue"]) == 32 for row in rows)
    with (tmp_path / "run" / "worst.csv").open() as file:
        worst = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in worst]
    assert len(worst) == 24
    assert losses == sorted(losses, reverse=True)
    assert {row["slide"] for row in worst} <= {"a", "b"}
