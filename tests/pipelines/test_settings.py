"""The full recipes have the published settings of their teams; deviations are noted here."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from wsi_seg.config import load_recipe
from wsi_seg.config.augment import (
    AffineConfig,
    BrightnessContrastConfig,
    Chance,
    ElasticConfig,
    GammaConfig,
    GridConfig,
    StepConfig,
    StrengthConfig,
)
from wsi_seg.config.ensemble import read_ensemble
from wsi_seg.data.presets import PRESETS
from wsi_seg.learn.monitor import RULES
from wsi_seg.postprocess.rule import read_rule

FOLDER = Path(__file__).parents[2] / "pipelines"


def full(task, *settings):
    return load_recipe(FOLDER / task / "recipe.yaml", settings)


def step_of(train):
    """Return the number of patches per step."""
    return train.batch_size * train.accumulate * train.devices


def weights(recipe):
    return {name: term.weight for name, term in recipe.loss.terms.items()}


def commands_of(task):
    """Return the settings of each ``--set`` line at the top of a recipe, without comments."""
    text = (FOLDER / task / "recipe.yaml").read_text()
    head = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#"))
    for command in re.sub(r"\\\n", " ", head).splitlines():
        if command.strip().startswith("--set"):
            words = shlex.split(command)
            yield [value for word, value in pairwise(words) if word == "--set"]


@pytest.mark.parametrize("task", ["siim_pneumothorax", "stas_lung", "hubmap_kidney", "lung_nodule"])
def test_every_setting_at_the_top_of_a_recipe_is_valid(task):
    found = list(commands_of(task))
    assert found
    for settings in found:
        assert full(task, *settings) != full(task)


def test_siim_changes_positive_rates_and_lowers_learning_rates():
    """SIIM-ACR 2019 winner: its description, and otherwise its configs."""
    recipe = full("siim_pneumothorax")
    stages = recipe.stages
    assert [p.name for p in recipe.phases] == ["pre", "part0", "part1", "part2", "part3"]
    assert [s.patch_px for s in stages] == [512, 1024, 1024, 1024, 1024]
    assert [s.sampling.mix.objects for s in stages[1:]] == [0.8, 0.6, 0.4, 0.5]
    assert all(s.sampling.mix.empty == pytest.approx(1 - s.sampling.mix.objects) for s in stages)
    assert [s.optimizer.lr for s in stages[1:]] == [1e-4, 1e-5, 1e-5, 1e-6]
    for optimizer in (s.optimizer for s in stages):
        assert (optimizer.name, optimizer.weight_decay) == ("adam", 5e-6)
        assert optimizer.clip_norm == 0.1
    assert all(weights(s) == {"bce": 3, "dice": 1, "focal": 4} for s in stages)
    assert {s.loss.focal.gamma for s in stages} == {2.0}
    assert {(s.sampling.unit, s.sampling.patches_per_epoch) for s in stages} == {("slide", None)}
    plateau = stages[1].schedule
    assert (plateau.name, plateau.factor, plateau.patience) == ("plateau", 0.1, 2)
    assert (plateau.threshold, plateau.min_lr) == (1e-7, 1e-7)
    assert [s.schedule.name for s in stages[2:]] == ["plateau", "warm_restarts", "plateau"]
    restarts = stages[3].schedule
    assert (restarts.epochs, restarts.multiply) == (1, 2)
    assert [s.model.freeze_encoder_epochs > 0 for s in stages] == [False, True, False, False, False]
    assert (recipe.data.folds, recipe.train.top_k, recipe.train.batch_size) == (5, 3, 2)
    assert [s.train.early_stop for s in stages[1:]] == [10, 12, 12, 12]
    assert (recipe.model.architecture, recipe.model.encoder) == ("Unet", "resnet34")
    assert recipe.augment == "siim"


def test_siim_epochs_are_scored_by_its_eight_triplets():
    recipe = full("siim_pneumothorax")
    assert {s.train.monitor for s in recipe.stages} == {"triplet"}
    published = {
        (top, bottom, least)
        for top, least in ((0.75, 1000), (0.75, 2000), (0.6, 2000), (0.6, 3000))
        for bottom in (0.3, 0.4)
    }
    assert published <= set(RULES)


def test_siim_has_the_settings_of_its_other_networks():
    cosine, resnet50, seunet, public = commands_of("siim_pneumothorax")
    one = full("siim_pneumothorax", *cosine).stages[2].schedule
    assert (one.name, one.epochs, one.min_lr) == ("cosine", 8, 1e-7)
    one = full("siim_pneumothorax", *resnet50)
    assert (one.model.encoder, weights(one)) == ("resnet50", {"bce": 2, "dice": 1, "focal": 2})
    assert {s.model.freeze_encoder_epochs for s in one.stages} == {0}
    one = full("siim_pneumothorax", *seunet)
    assert (one.model.encoder, one.model.decoder_attention) == ("se_resnext50_32x4d", "scse")
    one = full("siim_pneumothorax", *public)
    assert weights(one) == {"bce": 1, "dice": 1, "focal": 1}
    assert [s.sampling.mix.objects for s in one.stages[1:]] == [0.8, 0.4, 0.6, 0.4]


@pytest.mark.parametrize(
    ("name", "shares", "rule"),
    [
        ("public", (0.4, 0.2, 0.2, 0.2), (0.7, 0.3, 800)),
        ("valid", (0.2, 0.15, 0.4, 0.25), (0.75, 0.3, 1500)),
    ],
)
def test_siim_blends_its_four_networks_as_published(name, shares, rule, tmp_path):
    """Weights of the public network, AlbuNet, SCSE-Unet and ResNet50; contours above 100 px."""
    text = (FOLDER / "siim_pneumothorax" / f"blend-{name}.yaml").read_text(encoding="utf-8")
    runs = ["public", "albunet", "seunet", "resnet50"]
    task = tmp_path / "pipelines" / "siim_pneumothorax"
    task.mkdir(parents=True)
    (task / "blend.yaml").write_text(text)
    for run in runs:  # three networks of each of five folds
        rows = [{"checkpoint": f"fold_{f}/top_{n}.safetensors"} for f in range(5) for n in range(3)]
        (tmp_path / f"run-siim-{run}").mkdir()
        (tmp_path / f"run-siim-{run}" / "ensemble.yaml").write_text(json.dumps({"members": rows}))
    blend = read_ensemble(task / "blend.yaml")
    assert blend.mode == "weighted"
    assert len(blend.members) == 60
    found = dict.fromkeys(runs, 0.0)
    for member in blend.members:
        found[Path(member.checkpoint).resolve().parts[-3].removeprefix("run-siim-")] += (
            member.weight
        )
    assert found == pytest.approx(dict(zip(runs, shares, strict=True)))
    decided = read_rule(FOLDER / "siim_pneumothorax" / f"rule-{name}.json")
    assert (decided.high_threshold, decided.low_threshold, decided.min_area) == rule
    assert (decided.unit, decided.per, decided.min_object_area) == ("px", "image", 101)
    page = (FOLDER / "siim_pneumothorax" / "README.md").read_text(encoding="utf-8")
    assert all(f"--out run-siim-{run}\n" in page for run in runs)


def test_siim_augments_by_its_list():
    chosen: list[Any] = [step.chosen for step in PRESETS["siim"]]
    flip, light, bend, move = chosen
    assert isinstance(flip, Chance)
    assert flip.p == 0.5
    assert (light.p, bend.p) == (0.3, 0.3)
    assert [one.chosen for one in light.of] == [
        BrightnessContrastConfig(brightness=0, contrast=0.2),
        GammaConfig(limit=(80, 120)),
        BrightnessContrastConfig(brightness=0.2, contrast=0),
    ]
    assert [one.chosen for one in bend.of] == [
        ElasticConfig(alpha=120, sigma=6),
        GridConfig(steps=5, limit=0.3),
        StrengthConfig(limit=2),
    ]
    assert move == AffineConfig(p=0.5, rotate=45, scale=(0.9, 1.1), shift=0.0625, keep_ratio=True)


def test_stas_is_the_published_network():
    """AI CUP 2022, 4th on the public leaderboard; val loss is 1 - soft Dice at full size."""
    recipe = full("stas_lung")
    assert (recipe.resize, recipe.patch_px) == ("stretch", 800)
    assert recipe.intensity.scale == "minmax"
    assert recipe.augment == "stas"
    assert PRESETS["stas"] == (StepConfig(rot90=Chance(p=0.3)),)
    assert weights(recipe) == {"dice": 1}
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.eps) == ("adabelief", 1e-4, 1e-16)
    assert (optimizer.betas, optimizer.weight_decay) == ((0.9, 0.99), 1e-4)
    train = recipe.train
    assert (train.monitor, train.max_minutes, train.precision) == ("soft_dice", None, "fp32")
    assert train.epochs > 200
    assert train.early_stop is None
    assert round(recipe.data.validation * 1053) == 237
    assert recipe.model.architecture == "DeepLabV3Plus"
    encoders = [recipe.model.encoder]
    batches = [step_of(train)]
    for settings in commands_of("stas_lung"):
        one = full("stas_lung", *settings)
        encoders.append(one.model.encoder)
        batches.append(step_of(one.train))
    assert encoders[:3] == [
        "tu-tf_efficientnet_b6.ns_jft_in1k",
        "tu-tf_efficientnetv2_m.in21k_ft_in1k",
        "tu-eca_nfnet_l2.ra3_in1k",
    ]
    assert batches == [16, 16, 24, 16]  # the last is the first for four GPUs


def test_hubmap_samples_regions_and_objects_as_published():
    """Fifth place of HuBMAP: cortex .7, medulla .2, background .1 of the draws without objects."""
    recipe = full("hubmap_kidney")
    mix = recipe.sampling.mix
    assert mix.objects == 0.5 * mix.total
    rest = mix.total - mix.objects
    assert {n: s / rest for n, s in mix.regions.items()} == pytest.approx(
        {"Cortex": 0.7, "Medulla": 0.2}
    )
    assert mix.background / rest == pytest.approx(0.1)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.betas) == ("ranger", 1e-3, (0.95, 0.999))
    assert optimizer.eps == 1e-5
    assert recipe.schedule.name == "one_cycle"
    assert (recipe.mpp, recipe.patch_px, recipe.train.batch_size) == (1.5, 512, 16)
    assert (recipe.model.architecture, recipe.model.encoder) == ("Unet", "efficientnet-b2")
    assert recipe.data.folds == 5


def test_lung_draws_nodules_by_size_and_grows_its_tile():
    """Tianchi 2017: x4 below 10 mm, x3 below 30, 30 % negatives, outside the lungs 170."""
    recipe = full("lung_nodule")
    sampling = recipe.sampling
    assert sampling.unit == "lesion"
    assert (sampling.sizes.edges_mm, sampling.sizes.repeats) == ((10, 30, 100), (4, 3, 1))
    assert sampling.sizes.above == "keep"
    assert (sampling.mix.objects, sampling.mix.tissue) == (0.7, 0.3)
    assert sampling.patches_per_epoch is None
    assert [s.patch_px for s in recipe.stages] == [32, 64, 128]
    assert (recipe.mpp, recipe.data.context_step_mm) == (1000, 1)
    assert recipe.intensity.outside_tissue == 170
    assert recipe.model.dropout == 0.1
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.momentum) == (
        "sgd", 0.01, 0.9,
    )  # fmt: skip
    assert (recipe.train.batch_size, recipe.train.epochs) == (16, 100)
    assert "bce_balanced" in recipe.loss.terms
