"""Recipes of the pipelines are valid, buildable and trainable for a step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from shapely.geometry import box

from wsi_seg.annotations import Annotation, Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.config import Recipe, load_recipe
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.geometry import Extent, dyadic_extents
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.learn.train import train
from wsi_seg.masks.labels import write_labels
from wsi_seg.models import NetworkSpec, build_network
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection, open_predictions
from wsi_seg.store.info import StoreInfo
from wsi_seg.testing.stores import write_image

FOLDER = Path(__file__).parents[2] / "pipelines"
RECIPES = sorted(FOLDER.glob("*/recipe*.yaml"))
SMALL = [path for path in RECIPES if "small" in path.name]


def name_of(path):
    return f"{path.parent.name}-{path.stem}"


def test_each_task_has_its_files():
    tasks = {path.parent.name for path in RECIPES}
    assert tasks == {
        "hubmap_kidney",
        "siim_pneumothorax",
        "stas_lung",
        "lung_nodule",
        "nuclei_dsb2018",
    }
    more = {
        "nuclei_dsb2018": {"recipe-boundary.yaml"},
        "siim_pneumothorax": {"blend-public.yaml", "blend-valid.yaml"},
    }
    for task in tasks:
        assert (FOLDER / task / "README.md").is_file()
        expected = {"recipe.yaml", "recipe-small.yaml"} | more.get(task, set())
        assert {path.name for path in (FOLDER / task).glob("*.yaml")} == expected


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipes_are_valid_in_every_phase(path):
    recipe = load_recipe(path)
    assert len(recipe.stages) == max(1, len(recipe.phases))


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Write slices of two volumes with objects and regions, on which any recipe can train."""
    collection = tmp_path_factory.mktemp("pipelines") / "store.zarr"
    create_collection(collection)
    rng = np.random.default_rng(0)
    names = [f"{volume}_z{z:04d}" for volume in "ab" for z in (0, 1)] + ["unseen_z0000"]
    for name in names:
        pixels = rng.integers(0, 256, (150, 170, 3), dtype=np.uint8)
        extents = dyadic_extents(Extent.of(pixels.shape), 2)
        # The slice spacing that the lung recipe needs.
        write_image(collection / name, pixels, StoreInfo(slice_mm=1.0).to_json(), extents=extents)
    return collection


def one_step(recipe, slides):
    """Reduce a recipe to one step of two small patches with random weights."""
    collection = open_collection(slides)
    classes = recipe.class_table
    for store in collection:
        # A slide without objects, for drawing negatives.
        outlines = () if store.name == "a_z0001" else (box(40, 30, 90, 80),)
        items = tuple(Annotation(o, name, "test") for o in outlines for name in classes.names)
        write_labels(store, Annotations(items, ()), classes, "annotations")
        regions = ClassTable.named(["Cortex", "Medulla"])
        parts = (Annotation(box(0, 0, 80, 150), "Cortex", "test"),
                 Annotation(box(80, 0, 170, 150), "Medulla", "test"))  # fmt: skip
        write_labels(store, Annotations(parts, ()), regions, "regions")
        inside = (Annotation(box(0, 0, 170, 150), "tissue", "test"),)
        write_labels(store, Annotations(inside, ()), ClassTable.named(["tissue"]), "tissue")
    values = recipe.model_dump(mode="json", exclude={"phases"})
    values["data"] |= {"stores": [str(slides)], "folds": None, "validation": ["unseen_z0000"]}
    values["data"] |= {"group_pattern": None, "train": ["a_z0000", "a_z0001", "b_z0000", "b_z0001"]}
    if recipe.data.context_slices:
        values["data"]["validation"] = ["b_z0001"]
        values["data"]["train"] = ["a_z0000", "a_z0001", "b_z0000"]
    values["model"]["weights"] = None
    values["patch_px"] = 64
    values["mpp"] = None if recipe.mpp is None else 0.5
    values["sampling"]["patches_per_epoch"] = 2
    values["train"] |= {"epochs": 1, "batch_size": 2, "workers": 0, "max_minutes": None, "top_k": 1}
    return Recipe.model_validate_json(json.dumps(values))


@pytest.mark.parametrize("path", SMALL, ids=name_of)
def test_small_recipes_train_predict_and_are_scored_for_a_step(path, slides, tmp_path):
    torch.manual_seed(0)
    recipe = one_step(load_recipe(path).stages[0], slides)
    train(recipe, tmp_path / "run", progress=Silent())
    predicted = tmp_path / "pred.zarr"
    infer(
        open_collection(slides),
        tmp_path / "run" / "best.safetensors",
        predicted,
        InferOptions(precision="fp32"),
        progress=Silent(),
    )
    scores = evaluate(
        open_predictions(predicted), open_collection(slides), label="annotations", progress=Silent()
    )
    assert {score.slide for score in scores.slides} == set(open_collection(slides).names())


@pytest.mark.pipelines
@pytest.mark.parametrize("path", [p for p in RECIPES if p not in SMALL], ids=name_of)
def test_full_recipes_train_and_predict_for_a_step_in_every_phase(path, slides, tmp_path):
    for number, stage in enumerate(load_recipe(path).stages):
        out = tmp_path / f"run{number}"
        train(one_step(stage, slides), out, progress=Silent())
        assert (out / "best.safetensors").is_file()


@pytest.mark.pipelines
@pytest.mark.parametrize(
    "encoder",
    [
        "resnet50",
        "se_resnext50_32x4d",
        "resnext50_32x4d",
        "tu-tf_efficientnetv2_m.in21k_ft_in1k",
        "tu-eca_nfnet_l2.ra3_in1k",
    ],
)
def test_the_other_encoders_of_the_recipes_are_built(encoder):
    architecture = "DeepLabV3Plus" if encoder.startswith("tu-") else "Unet"
    network = build_network(NetworkSpec(architecture, encoder, 3, 1))
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)
