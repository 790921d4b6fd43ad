import csv
import json
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wsi_seg.config import save_recipe
from wsi_seg.data.mix import mix_batch
from wsi_seg.errors import CheckpointError, ConfigError, OutputError, StoreError
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer, infer_with
from wsi_seg.learn.dataset import make_dataset, with_colours
from wsi_seg.learn.dry_run import dry_run
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.task import SegmentationTask
from wsi_seg.learn.train import train
from wsi_seg.learn.validate import infer_options
from wsi_seg.models import build_network, load_checkpoint
from wsi_seg.models.training_network import TrainingNetwork
from wsi_seg.predict.ensemble import read_model
from wsi_seg.progress import Silent
from wsi_seg.reporting.write import ReportSources
from wsi_seg.reporting.write import report as write_report
from wsi_seg.sampling.drift import distribution
from wsi_seg.store import create_collection, open_collection, open_predictions


class StopAt(Silent):
    """Presses Ctrl-C when the step with this title starts."""

    def __init__(self, title):
        self.title = title

    def start(self, title, total, unit):
        if title == self.title:
            raise KeyboardInterrupt


def rows_of(out):
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


pytestmark = pytest.mark.usefixtures("threads")


def test_a_run_trains_and_writes_its_files(recipe_for, tmp_path):
    recipe = recipe_for("train.epochs=6", "sampling.patches_per_epoch=64")
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    report = train(recipe, tmp_path / "run", progress=Silent())
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.json",
        "best.safetensors",
        "last.ckpt",
        "metrics.csv",
        "position_bias.json",
        "recipe.yaml",
        "worst.csv",
    ]
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 6
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert report.best.monitor == "val_dice"
    assert report.best.score == pytest.approx(max(float(r["val_dice"]) for r in rows), abs=1e-5)
    network, card = load_checkpoint(report.checkpoint)
    assert card.scores["val_dice"] == report.best.score
    assert (card.mpp, card.tile_px, card.classes.names) == (1.0, 32, ("disc",))
    assert card.training["validation_slides"] == ["c"]
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_a_resumed_run_equals_one_never_stopped(recipe_for, tmp_path):
    recipe = recipe_for("augment=light")
    whole = train(recipe, tmp_path / "whole", progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", progress=StopAt("epoch 2/3"))
    cut = train(recipe, tmp_path / "cut", progress=Silent())
    ours, theirs = load_file(whole.checkpoint), load_file(cut.checkpoint)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    varying = {"patches_per_second", "data_wait"}
    for one, other in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "cut"), strict=True):
        assert {k: one[k] for k in one if k not in varying} == {
            k: other[k] for k in other if k not in varying
        }
    again = train(recipe, tmp_path / "cut", progress=StopAt("epoch 4/3"))
    assert again.best.epochs == 3
    with pytest.raises(ConfigError, match="these differ: seed"):
        train(recipe_for("augment=light", "seed=1"), tmp_path / "cut", progress=Silent())
    (tmp_path / "cut" / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="delete it to start again"):
        train(recipe, tmp_path / "cut", progress=Silent())


def test_without_validation_the_last_epoch_is_kept(recipe_for, tmp_path):
    recipe = recipe_for("data.validation=0.0", "train.epochs=2")
    report = train(recipe, tmp_path / "run", progress=Silent())
    assert (report.best.score, report.best.best_epoch, report.best.validation_slides) == (
        None,
        2,
        0,
    )
    assert load_checkpoint(report.checkpoint)[1].training["epoch"] == 2


def test_time_limits_stop_a_run_and_its_rerun(recipe_for, tmp_path):
    recipe = recipe_for("train.max_minutes=1e-6", "train.validate_every=2")
    for _ in range(2):
        report = train(recipe, tmp_path / "run", progress=Silent())
        assert report.best.epochs == 1
        assert report.best.score is not None
        text = "stopped by train.max_minutes (1e-06) after 8 of 96 patches"
        assert text in report.lines()[-1]
        assert text in str(report.to_json()["stopped"])
    written = write_report(ReportSources(tmp_path / "run"), tmp_path / "report.html")
    assert written.sections[0] == "Warnings"
    assert text in (tmp_path / "report.html").read_text()


def test_a_run_within_its_limit_is_not_stopped(recipe_for, tmp_path):
    report = train(recipe_for("train.max_minutes=60", "train.epochs=1"), tmp_path / "run")
    assert report.best.stopped == ()
    assert "stopped" not in report.lines()[-1]
    assert not list((tmp_path / "run").rglob("stopped.txt"))


def test_the_best_network_may_initialise_another_run(recipe_for, tmp_path):
    first = train(recipe_for("train.epochs=1"), tmp_path / "first", progress=Silent())
    # Tiny steps keep the initial weights, so the other runs show where they started.
    still = ("train.epochs=1", "optimizer={name: sgd, lr: 1e-12, weight_decay: 0}")
    second = train(
        recipe_for(*still, f"model.weights={first.checkpoint}"),
        tmp_path / "second",
        progress=Silent(),
    )
    other = train(recipe_for(*still), tmp_path / "other", progress=Silent())
    start, taken, drawn = (load_file(run.checkpoint) for run in (first, second, other))
    learned = [name for name in start if name.endswith("weight")]
    assert all(torch.allclose(taken[name], start[name], atol=1e-6) for name in learned)
    assert not all(torch.allclose(drawn[name], start[name], atol=1e-6) for name in learned)


def test_unsupported_patch_sizes_are_refused(recipe_for, tmp_path):
    recipe = recipe_for(
        "model={architecture: Linknet, encoder: mobilenet_v2, weights: null}", "patch_px=40"
    )
    with pytest.raises(ConfigError, match="needs a multiple of 32"):
        train(recipe, tmp_path / "run", progress=Silent())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.architecture=PAN", "train.batch_size=1"], r"train\.batch_size 1 .*2 or more"),
        (["train.batch_size=1"], r"train\.batch_size 1 .*a larger patch_px"),
        (["model.encoder=tu-swin_tiny_patch4_window7_224"], r"32 px .*set patch_px to 224"),
    ],
)
def test_untrainable_settings_are_refused_before_training(recipe_for, tmp_path, settings, said):
    recipe = recipe_for(*settings)
    for run in (lambda: train(recipe, tmp_path / "run"), lambda: dry_run(recipe)):
        with pytest.raises(ConfigError, match=said):
            run()
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_patches_with_an_odd_side_can_be_used(recipe_for, tmp_path):
    report = train(recipe_for("patch_px=37", "train.epochs=1"), tmp_path / "run")
    assert load_checkpoint(report.checkpoint)[1].tile_px == 37


def test_an_encoder_with_a_fixed_size_is_trained_and_used_at_its_size(recipe_for, slides, tmp_path):
    recipe = recipe_for(
        "model.encoder=tu-swin_tiny_patch4_window7_224", "model.encoder_args={embed_dim: 24}",
        "patch_px=224", "train.epochs=1", "sampling.patches_per_epoch=2", "train.batch_size=2",
        "model.deep_supervision=0.1",
    )  # fmt: skip
    report = train(recipe, tmp_path / "run")
    model = read_model([report.checkpoint])
    stores = open_collection(slides / "store.zarr")
    found = infer(stores, model, tmp_path / "pred.zarr", InferOptions(overlap=0.0))
    assert len(found.slides) == 4
    with pytest.raises(ConfigError, match=r"images of 128 px .*leave out --tile"):
        infer(stores, model, tmp_path / "other.zarr", InferOptions(tile_px=128))


def test_an_unwritable_folder_is_an_output_error(recipe_for, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make folder"):
        train(recipe_for(), tmp_path / "file" / "run", progress=Silent())


def test_accumulated_steps_are_whole_and_their_loss_is_divided_once(recipe_for, tmp_path):
    recipe = recipe_for(
        "train.epochs=1", "train.accumulate=3", "sampling.patches_per_epoch=25", "loss={bce: 2}"
    )
    train(recipe, tmp_path / "run", progress=Silent())
    (row,) = rows_of(tmp_path / "run")
    assert float(row["loss"]) == pytest.approx(2 * float(row["bce"]), rel=1e-4)
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2  # 25 patches are rounded up to 2 steps of 3 batches of 8


@pytest.mark.slow
def test_two_processes_share_an_epoch(recipe_for, tmp_path):
    recipe = recipe_for(
        "train.devices=2",
        "train.batch_size=4",
        "train.ema=0.9",
        "train.epochs=2",
        "model.freeze_encoder_epochs=1",
        "data.validation=0.2",
        "data.folds=2",
        "ensemble.out_of_fold=false",
    )
    save_recipe(recipe, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "wsi_seg", "train", tmp_path / "recipe.yaml", "--json"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "run"], check=True, timeout=200, capture_output=True
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report["folds"]) == 2
    assert report["ensemble"].endswith("ensemble.yaml")
    for fold in ("fold_0", "fold_1"):
        assert len(rows_of(tmp_path / "run" / fold)) == 2
        state = torch.load(tmp_path / "run" / fold / "last.ckpt", weights_only=True)
        assert state["global_step"] == 8  # two epochs of 32 patches, 8 at a time
        load_checkpoint(tmp_path / "run" / fold / "best.safetensors")


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_the_loss_is_that_of_the_mixed_batch(recipe_for, card_of, kind):
    recipe = recipe_for(f"mix_batches={{kind: {kind}, p: 1}}")
    card = card_of(recipe)
    learner = TrainingNetwork(build_network(card.spec), classes=1)
    mixing, plain = (
        SegmentationTask(learner, card, one, steps_per_epoch=1).eval()
        for one in (recipe, recipe_for())
    )
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.randint(0, 2, (4, 32, 32), dtype=torch.uint8, generator=draws)
    batch = images, labels, torch.ones(4)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        found = mixing.training_step(batch, 0)["loss"]
        torch.manual_seed(7)
        mixed = mix_batch(*batch, recipe.mix_batches, classes=1)
    assert torch.equal(found, plain.training_step(mixed, 0)["loss"])
    assert not torch.equal(found, plain.training_step(batch, 0)["loss"])


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (("optimizer.betas=[0.5, 0.99]",), "betas", (0.5, 0.99)),
        (("optimizer.name=sgd", "optimizer.momentum=0.8"), "momentum", 0.8),
        ((), "betas", (0.95, 0.999)),
    ],
)
def test_one_cycle_keeps_the_momentum_of_the_recipe(recipe_for, card_of, settings, key, value):
    recipe = recipe_for(*settings)
    card = card_of(recipe)
    learner = TrainingNetwork(build_network(card.spec), classes=1)
    found: Any = SegmentationTask(learner, card, recipe, steps_per_epoch=4).configure_optimizers()
    assert found["optimizer"].param_groups[0][key] == value


def test_restain_statistics_are_measured_on_the_training_slides(recipe_for):
    recipe = recipe_for("augment=[{d4: {}}, {one_of: {of: [{restain: {}}, {hflip: {}}]}}]")
    (split,) = split_slides(recipe)
    filled: Any = with_colours(recipe.augment, split.train)
    assert filled[0] == recipe.augment[0]
    mean, deviation = distribution([slide.store for slide in split.train])
    inner = filled[1].one_of.of[0].restain
    assert inner.mean == pytest.approx(mean.tolist())
    assert inner.deviation == pytest.approx(deviation.tolist())
    assert len(split.train) == 2
    assert np.abs(deviation).max() > 0
    image, _ = make_dataset(recipe)[0]  # and patches can be read
    assert image.shape == (3, 32, 32)


def test_slides_resized_to_a_rectangle_are_trained_and_predicted(recipe_for, tmp_path):
    recipe = recipe_for("mpp=null", "train.epochs=1", "resize=stretch", "resize_px=[64, 96]")
    report = train(recipe, tmp_path / "run", progress=Silent())
    _, card = load_checkpoint(report.checkpoint)
    assert (card.resize_px, card.tile_px) == ((64, 96), 32)
    slides = open_collection(recipe.data.stores[0])
    options = infer_options(recipe, "cpu")
    model = read_model([report.checkpoint])
    infer_with(model, [slides["c"]], tmp_path / "p.zarr", options, progress=Silent())
    scores = evaluate(
        open_predictions(tmp_path / "p.zarr"), slides, label="annotations", progress=Silent()
    )
    assert scores.pooled("disc").dice == pytest.approx(card.scores["val_dice"], abs=1e-9)
    with pytest.raises(ConfigError, match="expected resize stretch"):
        recipe_for("resize_px=[64, 96]")


@pytest.mark.parametrize("mode", ["stretch", "crop"])
def test_resized_slides_of_any_size_are_trained_as_a_whole(recipe_for, tmp_path, mode):
    recipe = recipe_for("mpp=null", "train.epochs=1", f"resize={mode}", "patch_px=64")
    report = train(recipe, tmp_path / "run", progress=Silent())
    _, card = load_checkpoint(report.checkpoint)
    assert (card.resize, card.tile_px) == (mode, 64)
    (store,) = recipe.data.stores
    slides = open_collection(store)
    # A patch that covers the slide along an axis is centred on it.
    with (tmp_path / "run" / "worst.csv").open() as file:
        for row in csv.DictReader(file):
            extent = slides[row["slide"]].pyramid.extent
            assert extent.height < extent.width
            assert float(row["y"]) == pytest.approx(extent.height / 2, abs=0.06)
            if mode == "stretch":
                assert float(row["x"]) == pytest.approx(extent.width / 2, abs=0.06)
    # Validation scores the inference result against the truth at the slide's own size.
    options = infer_options(recipe, "cpu")
    model = read_model([report.checkpoint])
    infer_with(model, [slides["c"]], tmp_path / "p.zarr", options, progress=Silent())
    found = open_predictions(tmp_path / "p.zarr")
    assert found["c"].pyramid.extent == slides["c"].pyramid.extent
    scores = evaluate(found, slides, label="annotations", progress=Silent())
    assert scores.pooled("disc").dice == pytest.approx(card.scores["val_dice"], abs=1e-9)


def test_slices_are_trained_with_context_slices(slides, recipe_for, tmp_path):
    with pytest.raises(StoreError, match="is not a slice of a volume"):
        train(recipe_for("data.context_slices=1"), tmp_path / "run", progress=Silent())
    volume = tmp_path / "store.zarr"
    create_collection(volume)
    for z in range(3):
        shutil.copytree(slides / "store.zarr" / "a", volume / f"ct_z{z:04d}")
    settings = (f"data.stores=[{volume}]", "data.context_slices=2", "data.validation=[ct_z0002]")
    train(recipe_for(*settings, "train.epochs=1"), tmp_path / "run", progress=Silent())
    network, card = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert (card.context_slices, card.in_channels) == (2, 5)
    assert network(torch.zeros(1, 5, 32, 32)).shape == (1, 1, 32, 32)


def test_a_patch_size_incompatible_with_the_network_is_refused(recipe_for, tmp_path):
    network = "model={architecture: Linknet, encoder: resnet18, weights: null}"
    with pytest.raises(ConfigError, match=r"got patch_px 801.*needs a multiple of 32"):
        train(
            recipe_for("mpp=null", "resize=stretch", "patch_px=801", network),
            tmp_path,
            progress=Silent(),
        )


@pytest.mark.parametrize("preset", ["light", "stain"])
def test_patches_are_augmented_on_the_device_and_workers_start_once(recipe_for, tmp_path, preset):
    recipe = recipe_for(
        "train.epochs=2", "train.workers=1", "train.augment_on=device", f"augment={preset}"
    )
    report = train(recipe, tmp_path, progress=Silent())
    assert report.best.epochs == 2
    assert report.checkpoint.is_file()
