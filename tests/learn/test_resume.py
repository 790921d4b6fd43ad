"""A run that is killed in the middle of an epoch and resumed equals an uninterrupted one."""

import csv
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.forks import begin
from wsi_seg.config import load_recipe, save_recipe
from wsi_seg.data.dataset import EpochItems
from wsi_seg.errors import CheckpointError
from wsi_seg.learn import callback
from wsi_seg.learn.resume import Position, position_of, save_state
from wsi_seg.learn.train import train
from wsi_seg.progress import Silent

# Three epochs of four steps of 8 patches; the state is saved after every step.
EAGER = ("train.save_minutes=0.0", "augment=light")
VARYING = {"patches_per_second", "data_wait"}


class StopAfter(Silent):
    """Presses Ctrl-C after a number of patches."""

    def __init__(self, patches):
        self.left = patches

    def start(self, title, total, unit):
        self.counts = unit == "patches"

    def advance(self, amount):
        self.left -= amount * self.counts
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(out):
    with (out / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in VARYING} for row in csv.DictReader(file)]


def assert_same_run(one, other):
    ours, theirs = load_file(one / "best.safetensors"), load_file(other / "best.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (
        torch.load(out / "last.ckpt", weights_only=True)["state_dict"] for out in (one, other)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rows_of(one) == rows_of(other)


PLANS = {
    "dropout and EMA": (
        "model.dropout=0.5",
        "train.ema=0.9",
        "sampling={patches_per_epoch: 30, replay: 0.2, mix: {objects: 1}}",
    ),
    "accumulation, lookahead and plateau": (
        "train.accumulate=2",
        "optimizer={name: adamw, lr: 5e-3, lookahead: true, encoder_lr: 1e-3, clip_norm: 0.5}",
        "schedule={name: plateau, patience: 0}",
    ),
    "frozen encoder, heads and SWA": (
        "model.head=gem",
        "model.deep_supervision=0.1",
        "model.freeze_encoder_epochs=2",
        "loss={bce: 1, lovasz: 1, bce_empty: 0.1}",
        "optimizer={name: ranger, lr: 1e-3}",
        "schedule={name: cosine, warmup_epochs: 1.0}",
        "train.swa_from=0.5",
    ),
}


@pytest.mark.parametrize("plan", PLANS)
def test_stopped_anywhere_in_an_epoch(recipe_for, tmp_path, plan):
    recipe = recipe_for(*EAGER, *PLANS[plan])
    train(recipe, tmp_path / "whole", progress=Silent())
    # In the second and the third epoch; a resumed progress bar includes finished patches.
    for patches in (56, 56):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", progress=StopAfter(patches))
        position = position_of(tmp_path / "cut")
        assert position is not None
        assert position.batches > 0
    train(recipe, tmp_path / "cut", progress=Silent())
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_slowly_saved_states_are_not_saved_after_each_epoch(recipe_for, tmp_path, monkeypatch):
    now, saved = [0.0], []

    def clock():
        now[0] += 1e-3
        return now[0]

    def save(trainer, out):
        now[0] += 60
        saved.append(trainer.current_epoch)
        save_state(trainer, out)

    monkeypatch.setattr(callback, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(callback, "save_state", save)
    train(recipe_for("train.epochs=4"), tmp_path / "run", progress=Silent())
    assert saved == [0, 3]  # the time of saving is known after the first


class Kill(StopAfter):
    """Kills the process after a number of patches."""

    def advance(self, amount):
        self.left -= amount * self.counts
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(recipe, out):
    torch.set_num_threads(1)
    train(load_recipe(recipe), out, progress=Kill(56))  # the third step of the second epoch


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch(recipe_for, tmp_path):
    recipe = recipe_for(*EAGER, "model.dropout=0.5")
    train(recipe, tmp_path / "whole", progress=Silent())
    save_recipe(recipe, tmp_path / "recipe.yaml")
    process = begin(train_until_killed, tmp_path / "recipe.yaml", tmp_path / "cut")
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert position_of(tmp_path / "cut") == Position(1, 2)
    # This time patches are loaded by a worker, which changes nothing.
    train(
        recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": 1})}),
        tmp_path / "cut",
        progress=Silent(),
    )
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_resumed_epoch_has_the_remaining_items(ranks):
    for rank in range(ranks):
        whole = EpochItems(12, rank=rank, ranks=ranks)
        whole.set_epoch(5)
        cut = EpochItems(12, rank=rank, ranks=ranks, epoch=5, skip=2)
        assert list(cut) == list(whole)[2:]
        assert len(cut) == len(whole)
        for items in (whole, cut):
            items.set_epoch(6)
        assert list(cut) == list(whole)
    shares = [list(EpochItems(12, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert sorted(item for share in shares for item in share) == list(range(12))


def test_a_state_without_a_position_is_damaged(tmp_path):
    assert position_of(tmp_path) is None
    torch.save({"epoch": 3}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="delete it to start again"):
        position_of(tmp_path)
