"""Phases, folds and their output."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from wsi_seg.config import load_recipe, save_recipe
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.learn import train as train_module
from wsi_seg.learn.average import average_checkpoints
from wsi_seg.learn.fit import Fitted
from wsi_seg.learn.history import History
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.train import train
from wsi_seg.models import load_checkpoint, read_card, save_checkpoint
from wsi_seg.models.digest import digest_of
from wsi_seg.progress import Silent
from wsi_seg.store import open_predictions

# The SIIM-ACR 2019 winner's five stages: positive rates .8/.6/.4/.5, each stage from the best
# network of the previous one in the same fold; three networks of each of five folds.
SIIM = """
name: siim-seunet
seed: 0
classes: [{name: pneumothorax}]
data: {stores: [store.zarr], folds: 5}
mpp: null
patch_px: 1024
augment: light
model: {architecture: Unet, encoder: se_resnext50_32x4d, weights: null, decoder_attention: scse}
loss: {bce: 3, dice: 1, focal: {weight: 4, gamma: 2}}
optimizer: {name: adam, weight_decay: 5.0e-6, clip_norm: 0.1}
train: {batch_size: 2, top_k: 3, early_stop: 12}
phases:
  - name: pre
    patch_px: 512
    sampling: {mix: {objects: 0.8, tissue: 0.2}, patches_per_epoch: null}
    optimizer: {lr: 1.0e-4}
    schedule: {name: plateau, factor: 0.1, patience: 2, threshold: 1.0e-7, min_lr: 1.0e-7}
    train: {epochs: 12, early_stop: 10}
  - name: part0
    sampling: {mix: {objects: 0.8, tissue: 0.2}, patches_per_epoch: null}
    model: {freeze_encoder_epochs: 2}
    optimizer: {lr: 1.0e-4}
    schedule: {name: plateau, factor: 0.1, patience: 2, threshold: 1.0e-7, min_lr: 1.0e-7}
    train: {epochs: 12, early_stop: 10}
  - name: part1
    sampling: {mix: {objects: 0.6, tissue: 0.4}, patches_per_epoch: null}
    optimizer: {lr: 1.0e-5}
    schedule: {name: cosine, epochs: 8.0, min_lr: 1.0e-7}
    train: {epochs: 40}
  - name: part2
    sampling: {mix: {objects: 0.4, tissue: 0.6}, patches_per_epoch: null}
    optimizer: {lr: 1.0e-5}
    schedule: {name: warm_restarts, epochs: 1.0, multiply: 2}
    train: {epochs: 50}
  - name: part3
    sampling: {mix: {objects: 0.5, tissue: 0.5}, patches_per_epoch: null}
    optimizer: {lr: 1.0e-6}
    schedule: {name: cosine, epochs: 8.0, min_lr: 1.0e-7}
    train: {epochs: 50}
"""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_siim_winner_fits_on_a_page(tmp_path):
    path = tmp_path / "siim.yaml"
    path.write_text(SIIM)
    assert len(SIIM.splitlines()) <= 50
    recipe = load_recipe(path)
    stages = recipe.stages
    assert [phase.name for phase in recipe.phases] == ["pre", "part0", "part1", "part2", "part3"]
    assert [stage.patch_px for stage in stages] == [512, 1024, 1024, 1024, 1024]
    assert [stage.sampling.mix.objects for stage in stages] == [0.8, 0.8, 0.6, 0.4, 0.5]
    assert [stage.optimizer.lr for stage in stages] == [1e-4, 1e-4, 1e-5, 1e-5, 1e-6]
    assert [stage.schedule.name for stage in stages] == [
        "plateau", "plateau", "cosine", "warm_restarts", "cosine"
    ]  # fmt: skip
    assert [stage.model.freeze_encoder_epochs for stage in stages] == [0, 2, 0, 0, 0]
    assert {stage.optimizer.clip_norm for stage in stages} == {0.1}
    assert {tuple(stage.loss.terms) for stage in stages} == {("bce", "focal", "dice")}
    assert len({stage.seed for stage in stages}) == 5
    save_recipe(recipe, path)
    assert load_recipe(path) == recipe
    assert load_recipe(path).stages == stages


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("[{name: a, optimizer: {lrr: 1}}]", r"phases: unknown key 'optimizer.lrr'.*'lr'"),
        ("[{name: a, optimzer: {lr: 1}}]", r"unknown key 'phases.0.optimzer'.*'optimizer'"),
        ("[{name: a, patch_px: 4}]", "phases: patch_px: .*greater than or equal to 8"),
        ("[{name: a}, {name: a}]", "expected each name once"),
        ("[{name: ../a}]", "phases.0.name"),
        ("[{name: a, model: {encoder: resnet18}}]", "changes model.encoder; expected the same"),
    ],
)
def test_wrong_phases_are_explained(recipe_for, phases, message):
    with pytest.raises(ConfigError, match=message):
        recipe_for(f"phases={phases}")


def test_phases_replace_interdependent_sections(recipe_for):
    recipe = recipe_for(
        "loss={bce: 3, focal: 4}",
        "phases=[{name: a, loss: {lovasz: 1}, optimizer: {lr: 1e-4}, train: {epochs: 9}}]",
    )
    (stage,) = recipe.stages
    assert list(stage.loss.terms) == ["lovasz"]
    assert (stage.train.epochs, stage.train.batch_size) == (9, 8)
    assert (stage.optimizer.lr, stage.patch_px) == (1e-4, 32)


def test_folds_hold_every_slide_out_once(recipe_for):
    splits = split_slides(recipe_for("data.validation=0.2", "data.folds=3", "seed=4"))
    held_out = [store.name for split in splits for store in split.validation]
    assert sorted(held_out) == ["a", "b", "c"]
    for split in splits:
        assert not {s.name for s in split.train} & {s.name for s in split.validation}
    message = r"data\.folds is 4, but the labelled slides .* form only 3 groups"
    with pytest.raises(ConfigError, match=message):
        split_slides(recipe_for("data.validation=0.2", "data.folds=4"))


def test_a_fold_starts_from_its_own_network_of_an_earlier_run(recipe_for):
    earlier = "model.weights=/first/fold_{fold}/best.safetensors"
    recipe = recipe_for("data.validation=0.2", "data.folds=2", earlier, "phases=[{name: one}]")
    for index in range(2):
        (stage,) = recipe.of_fold(index).stages
        assert stage.model.start == Path(f"/first/fold_{index}/best.safetensors")
    with pytest.raises(ConfigError, match=r"has \{fold\}; expected data\.folds"):
        recipe_for(earlier)


def test_each_phase_starts_from_the_previous_best_of_its_own_fold(
    recipe_for, tmp_path, monkeypatch
):
    seen = []

    def pretend(recipe, split, out, *, start, progress, callbacks=()):
        held_out = [store.name for store in split.validation]
        seen.append((out.relative_to(tmp_path).as_posix(), start, held_out))
        for suffix in (".safetensors", ".json"):
            (out / "best").with_suffix(suffix).touch()
        best = out / "best.safetensors"
        row = {"epoch": 1.0, "val_dice": 0.5, "patches_per_second": 1.0, "data_wait": 0.0}
        return Fitted(best, (best,), History([row]), 7)

    monkeypatch.setattr(train_module, "fit", pretend)
    recipe = recipe_for(
        "data.validation=0.2",
        "data.folds=2",
        "ensemble.out_of_fold=false",
        "phases=[{name: one}, {name: two}]",
    )
    train(recipe, tmp_path, progress=Silent())
    assert [(out, start and start.relative_to(tmp_path).as_posix()) for out, start, _ in seen] == [
        ("fold_0/one", None),
        ("fold_0/two", "fold_0/one/best.safetensors"),
        ("fold_1/one", None),
        ("fold_1/two", "fold_1/one/best.safetensors"),
    ]
    assert seen[0][2] == seen[1][2]
    assert seen[2][2] == seen[3][2]
    assert not set(seen[0][2]) & set(seen[2][2])


def test_folds_write_an_ensemble_and_predictions(recipe_for, tmp_path):
    recipe = recipe_for(
        "data.validation=0.2",
        "data.folds=3",
        "train.top_k=2",
        "train.epochs=3",
        "sampling.patches_per_epoch=8",
        "phases=[{name: one, train: {epochs: 1}}, {name: two, optimizer: {lr: 1e-3}}]",
    )
    report = train(recipe, tmp_path, progress=Silent())
    content = yaml.safe_load((tmp_path / "ensemble.yaml").read_text())
    assert content["mode"] == "mean"
    members = [tmp_path / row["checkpoint"] for row in content["members"]]
    assert len(members) == 6
    assert all(row["weight"] == 1.0 for row in content["members"])
    assert not any(Path(row["checkpoint"]).is_absolute() for row in content["members"])
    networks = [load_checkpoint(path)[0] for path in members]
    first = [next(iter(network.parameters())) for network in networks]
    assert len({p.data_ptr() for p in first}) == 6
    assert len({p.detach().numpy().tobytes() for p in first}) == 6
    for index in range(3):
        fold = tmp_path / f"fold_{index}"
        card = read_card(fold / "best.safetensors")
        held_out = card.training["validation_slides"]
        assert [store.name for store in open_predictions(fold / "oof.zarr")] == held_out
        assert len(list((fold / "two" / "top").glob("*.safetensors"))) == 2
        two, one = (load_file(fold / name / "best.safetensors") for name in ("two", "one"))
        assert any(not torch.equal(two[name], one[name]) for name in one)
    assert 0 <= report.out_of_fold_dice["disc"] <= 1
    assert report.model == tmp_path / "ensemble.yaml"
    assert report.to_json()["ensemble"] == str(report.ensemble)


def test_out_of_fold_predictions_are_replaced_after_more_training(recipe_for, tmp_path):
    settings = ("data.validation=0.2", "data.folds=2", "train.epochs=1")
    recipe = recipe_for(*settings, "sampling.patches_per_epoch=8")
    train(recipe, tmp_path, progress=Silent())
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("fold_1/oof.zarr/*/*.jsonl")}
    best = tmp_path / "fold_0" / "best.safetensors"
    network, card = load_checkpoint(best)
    with torch.no_grad():
        next(network.parameters()).add_(0.5)
    save_checkpoint(best, network, card)
    train(recipe, tmp_path, progress=Silent())
    for store in open_predictions(tmp_path / "fold_0" / "oof.zarr"):
        noted: Any = store.attributes
        assert noted["settings"]["checkpoint"] == digest_of(best)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_checkpoints_are_averaged_but_counters_are_not(recipe_for, tmp_path):
    recipe = recipe_for("train.top_k=3", "sampling.patches_per_epoch=8", "ensemble.average=true")
    report = train(recipe, tmp_path, progress=Silent())
    assert report.best.members == (tmp_path / "average.safetensors",)
    mean = load_file(tmp_path / "average.safetensors")
    kept = [load_file(path) for path in sorted((tmp_path / "top").glob("*.safetensors"))]
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            expected = torch.stack([one[name].double() for one in kept]).mean(0)
            assert torch.allclose(tensor.double(), expected, atol=1e-6), name
        else:
            assert any(torch.equal(tensor, one[name]) for one in kept), name
    assert load_checkpoint(tmp_path / "average.safetensors")[1].scores == {}
    with pytest.raises(CheckpointError, match="no checkpoints"):
        average_checkpoints([], tmp_path / "none.safetensors")


def test_a_greedy_soup_is_scored_like_any_network(recipe_for, tmp_path):
    """It scores at least as well as the best epoch, and lists its members."""
    recipe = recipe_for(
        "train.top_k=3", "train.ema=null", "ensemble.average=greedy", "train.monitor=loss"
    )
    report = train(recipe, tmp_path, progress=Silent())
    assert report.model == tmp_path / "average.safetensors"
    card = read_card(report.model)
    assert report.best.score is not None
    assert 0 < card.scores["val_loss"] <= report.best.score + 1e-6
    names = report.best.averaged
    assert names[0] == f"epoch_{report.best.best_epoch:04d}"
    assert card.training["averaged"] == [f"{name}.safetensors" for name in names]
    assert any("mean of epoch_" in line for line in report.lines())
    mean = load_file(report.model)
    kept = [load_file(tmp_path / "top" / f"{name}.safetensors") for name in names]
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            expected = torch.stack([one[name].double() for one in kept]).mean(0)
            assert torch.allclose(tensor.double(), expected, atol=1e-6), name
    with pytest.raises(ConfigError, match="greedy needs held-out slides"):
        recipe_for("ensemble.average=greedy", "data.validation=0")


def test_a_class_missing_in_a_fold_is_reported_before_training(recipe_for, tmp_path):
    recipe = recipe_for(
        "classes=[{name: disc}, {name: unseen}]", "data.validation=0.2", "data.folds=3"
    )
    with pytest.raises(ConfigError, match="fold 0 cannot be trained: class unseen has no object"):
        train(recipe, tmp_path, progress=Silent())
    assert not list(tmp_path.rglob("last.ckpt"))
