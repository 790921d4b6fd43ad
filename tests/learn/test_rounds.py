"""Rounds of hard mining: each starts from the previous networks, with their errors."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wsi_seg.config import Recipe
from wsi_seg.errors import ConfigError
from wsi_seg.learn.dataset import run_sampler
from wsi_seg.learn.rounds import recipes_of_rounds
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.train import train
from wsi_seg.models.checkpoint import read_card
from wsi_seg.sampling import Layer
from wsi_seg.store import open_collection

ROUNDS = "rounds={count: 1, hard_negatives: 0.25, least: 0.02, ring_um: 1}"


def test_later_rounds_start_from_the_last_phase_and_its_networks(recipe_for, tmp_path):
    recipe = recipe_for(
        "data.validation=0", "data.folds=2", "phases=[{name: small, patch_px: 16}, {name: full}]",
        "rounds={count: 2, hard_negatives: 0.25, loss: {bce_hard_halves: {weight: 1, gamma: 2}}}",
    )  # fmt: skip
    first, second, third = recipes_of_rounds(recipe, tmp_path)
    assert first == recipe.model_copy(update={"rounds": None})
    for number, one in ((1, second), (2, third)):
        assert one.phases == ()
        assert one.patch_px == 32
        mix = one.sampling.mix
        assert mix.hard_negatives / mix.total == pytest.approx(0.25)
        assert mix.objects / mix.tissue == pytest.approx(0.6 / 0.4)
        for fold in (0, 1):
            weights = one.of_fold(fold).model.weights
            assert weights == str(tmp_path / f"round_{number}/fold_{fold}/best.safetensors")
    assert set(second.loss.terms) == {"bce", "dice"}
    assert third.loss.bce_hard_halves.gamma == 2
    assert set(third.loss.terms) == {"bce_hard_halves"}
    assert len({one.seed for one in (*first.stages, second, third)}) == 4


def names_held_out(recipe):
    return [[store.name for store in split.validation] for split in split_slides(recipe)]


def test_rounds_without_folds_are_refused(recipe_for):
    with pytest.raises(ConfigError, match=r"expected data\.folds"):
        recipe_for(ROUNDS)


@pytest.mark.slow
def test_a_round_draws_where_the_previous_one_was_wrong(recipe_for, slides, tmp_path):
    """With tiny learning rates, the networks of the second round are those of the first."""
    shutil.copytree(slides / "store.zarr", tmp_path / "store.zarr")
    recipe = recipe_for(
        f"data.stores=[{tmp_path}/store.zarr]", "data.validation=0", "data.folds=2",
        "train.epochs=1", "train.ema=null",
        "optimizer.lr=1e-12", "sampling.patches_per_epoch=8", "seed=3", ROUNDS,
    )  # fmt: skip
    # The seed of the second round would hold out other slides, which its networks were trained on.
    folds = [names_held_out(one) for one in recipes_of_rounds(recipe, tmp_path / "run")]
    assert folds[0] != folds[1]
    report = train(recipe, tmp_path / "run")
    assert report.checkpoint.is_relative_to(tmp_path / "run/round_2")
    for fold in (0, 1):
        before, after = (
            load_file(tmp_path / f"run/round_{n}/fold_{fold}/best.safetensors") for n in (1, 2)
        )
        name = next(key for key in before if key.endswith("conv.weight"))
        assert torch.allclose(before[name], after[name], atol=1e-6)
        seen = read_card(tmp_path / f"run/round_1/fold_{fold}/best.safetensors").training
        mined = read_card(tmp_path / f"run/round_2/fold_{fold}/best.safetensors").training
        assert seen["validation_slides"] == mined["validation_slides"] == folds[0][fold]
    wrong = {
        store.name: store.label("hard_negatives")
        for store in open_collection(tmp_path / "store.zarr")
        if "hard_negatives" in store.label_names()
    }
    assert sorted(wrong) == ["a", "b", "c"]
    # If there are hard cells, a quarter of the second round's patches is drawn there.
    second = Recipe.model_validate_json(
        json.dumps(recipes_of_rounds(recipe, tmp_path / "run")[1].model_dump(mode="json"))
    )
    sampler = run_sampler(split_slides(second)[0].train, second)
    drawn = np.mean(sampler.epoch(0).layer == Layer.HARD_NEGATIVES)
    assert drawn == pytest.approx(0.25, abs=0.13)
    again = train(recipe, tmp_path / "run")
    assert again.checkpoint == report.checkpoint
