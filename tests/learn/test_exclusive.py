"""Exclusive classes from the recipe to the label map: training, inference and scores."""

import json

import numpy as np
import pytest
import torch

from tests.learn.conftest import write_slide
from wsi_seg.config import load_recipe
from wsi_seg.errors import ConfigError
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.inference.run import infer
from wsi_seg.learn.train import train
from wsi_seg.learn.validate import infer_options
from wsi_seg.models import load_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection, open_predictions

RECIPE = """
classes: [{name: dark}, {name: yellow, weight: 2}]
data: {stores: [store.zarr], validation: [c]}
mpp: 1.0
patch_px: 32
sampling: {patches_per_epoch: 64, mix: {objects: 0.7, tissue: 0.3}}
model: {encoder: tu-test_efficientnet, weights: null}
optimizer: {lr: 1e-2}
train: {epochs: 5, batch_size: 8, precision: fp32, workers: 0}
"""


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory):
    """Write slides with dark and yellow discs, each painted over the previous ones."""
    folder = tmp_path_factory.mktemp("kinds")
    create_collection(folder / "store.zarr")
    for seed, name in enumerate("abc"):
        write_slide(folder / "store.zarr", name, seed, kinds=("dark", "yellow"))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def run(two_kinds, tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run")
    report = train(load_recipe(two_kinds / "recipe.yaml"), out, progress=Silent())
    torch.set_num_threads(before)
    return report, out


def test_both_classes_are_trained_with_a_softmax(run):
    report, out = run
    network, card = load_checkpoint(report.checkpoint)
    assert card.classes.mode == "exclusive"
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert card.scores["val_dice_slide"] > 0.5
    assert {"val_slide_dice_dark", "val_slide_dice_yellow", "val_loss"} <= set(card.scores)
    assert "val_triplet" not in card.scores
    recipe = json.loads((out / "best.json").read_text())["training"]["recipe"]
    assert {name for name, term in recipe["loss"].items() if term["weight"]} == {"ce", "dice"}


def test_inference_is_the_argmax_and_scores_as_in_validation(run, two_kinds, tmp_path):
    report, _ = run
    recipe = load_recipe(two_kinds / "recipe.yaml")
    slides = open_collection(two_kinds / "store.zarr")
    infer(slides, report.checkpoint, tmp_path / "p.zarr", infer_options(recipe, "cpu"))
    predictions = open_predictions(tmp_path / "p.zarr")
    image = predictions["c"].image[:, :].astype(int)
    every = np.concatenate([np.maximum(0, 255 - image.sum(axis=2))[..., None], image], axis=2)
    assert np.array_equal(predictions["c"].label("prediction")[:, :], every.argmax(axis=2))
    scores = evaluate(predictions, slides)
    held_out = [score.counts.dice for score in scores.slides if score.slide == "c"]
    _, card = load_checkpoint(report.checkpoint)
    assert np.mean(held_out) == pytest.approx(card.scores["val_dice_slide"], abs=1e-3)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("loss={bce: 1}", r"loss\.bce is for overlapping.*loss\.ce"),
        ("loss={focal: {weight: 1, alpha: 0.3}}", r"focal\.alpha.*expected null"),
        ("loss={ce: 1, bce_empty: 1}", r"bce_empty.*model\.head"),
        ("train.monitor=triplet", "dice_slide"),
    ],
)
def test_options_undefined_for_exclusive_classes_are_refused(two_kinds, setting, said):
    with pytest.raises(ConfigError, match=said):
        load_recipe(two_kinds / "recipe.yaml", [setting])


@pytest.mark.parametrize(
    "settings",
    [
        ("model.head=avg", "loss={ce: 1, bce_empty: 0.1, lovasz: 1}"),
        ("model.deep_supervision=0.5", "loss={focal: 1, cl_dice: 0.5, dice: 1}"),
        ("mix_batches={kind: mixup, p: 1.0}", "sampling.replay=0.1"),
        ("phases=[{name: one}, {name: two, loss: {lovasz: 1}}]",),
        ("classes={mode: exclusive, table: [{name: dark, from: [dark, yellow]}]}",),
    ],
    ids=lambda settings: settings[0].partition("=")[0],
)
def test_other_training_options_support_exclusive_classes(two_kinds, tmp_path, settings):
    recipe = load_recipe(
        two_kinds / "recipe.yaml",
        [*settings, "train.epochs=1", "sampling.patches_per_epoch=16"],
    )
    report = train(recipe, tmp_path / "run", progress=Silent())
    assert load_checkpoint(report.checkpoint)[1].classes.is_exclusive
