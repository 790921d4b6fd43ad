"""Overlapping classes from annotation to training: planes, and unannotated classes."""

import json

import numpy as np
import pytest
import torch
from shapely.geometry import Point, mapping

from tests.cards import make_card
from tests.commands import run_json
from tests.learn.conftest import write_slide
from tests.makers.memory import PixelPredictor
from wsi_seg.classes import ClassTable
from wsi_seg.config import load_recipe
from wsi_seg.data.source import PatchSource
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.evaluation.calibration import slide_reliability
from wsi_seg.evaluation.compare import evaluate
from wsi_seg.evaluation.search import grid, slide_scores
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.learn.dataset import make_dataset
from wsi_seg.learn.train import train
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.models import load_checkpoint
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.reading.view import View
from wsi_seg.reporting.preview import preview_slides
from wsi_seg.store import create_collection, open_collection, open_predictions

RECIPE = """
classes: {mode: overlapping, table: [{name: disc}, {name: core, weight: 2}]}
data: {stores: [store.zarr], validation: [c]}
mpp: 1.0
patch_px: 32
sampling: {patches_per_epoch: 32, mix: {objects: 0.6, tissue: 0.3, boundary: 0.1}}
model: {encoder: tu-test_efficientnet, weights: null}
optimizer: {lr: 1e-2}
train: {epochs: 2, batch_size: 8, precision: fp32, workers: 0}
"""


def dark(tiles):
    """Network that predicts the darkness of each pixel for both classes."""
    found = 1 - tiles.mean(axis=3, dtype=np.float32) / np.float32(255)
    return np.stack([found, found], axis=1)


def load(member, options, compiled):
    return PixelPredictor(dark, channels=2)


def feature(polygon, name):
    return {
        "type": "Feature", "geometry": mapping(polygon),
        "properties": {"classification": {"name": name}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """Write slides a and c with discs and their cores, and b with discs only."""
    root = tmp_path_factory.mktemp("nested")
    create_collection(root / "store.zarr")
    for seed, name in enumerate("abc"):
        write_slide(root / "store.zarr", name, seed, labelled=False)
        rng = np.random.default_rng(seed)
        rng.normal(200, 15, (161 + 10 * seed, 193, 3))  # continues the slide's generator
        rows = []
        for _ in range(12):
            y, x, radius = rng.uniform(0, 161 + 10 * seed), rng.uniform(0, 193), rng.uniform(10, 20)
            rows += [feature(Point(x, y).buffer(radius), "disc")]
            rows += [feature(Point(x, y).buffer(radius / 2), "core")] if name != "b" else []
        text = json.dumps({"type": "FeatureCollection", "features": rows})
        (root / f"{name}.geojson").write_text(text)
    store = str(root / "store.zarr")
    shared = ["annotate", store, "--overlapping", "--classes", "disc,core"]
    run_json(*shared[:2], *(str(root / f"{n}.geojson") for n in "ac"), *shared[2:])
    run_json(*shared[:2], str(root / "b.geojson"), *shared[2:], "--covered", "disc")
    (root / "recipe.yaml").write_text(RECIPE)
    return root


def test_a_core_is_inside_its_disc_and_unannotated_classes_are_ignored(nested):
    slides = open_collection(nested / "store.zarr")
    planes = slides["a"].planes("annotations")[:, :]
    disc, core = planes[..., 0] == 1, planes[..., 1] == 2
    assert core.any()
    assert disc[core].all()
    assert set(np.unique(slides["b"].planes("annotations")[:, :][..., 1])) == {255}
    assert set(np.unique(slides["b"].planes("annotations")[:, :][..., 0])) == {0, 1}


def test_patches_have_a_target_for_each_class(nested):
    recipe = load_recipe(nested / "recipe.yaml")
    slides = open_collection(nested / "store.zarr")
    sources = {
        name: PatchSource.of(
            slides[name], "annotations", classes=recipe.class_table, view=View.of(recipe)
        )
        for name in "ab"
    }
    planes = slides["a"].planes("annotations").read(slides["a"].pyramid.extents[1].region(1))
    _, label = sources["a"].patch(80, 96, 32)
    assert label.shape == (32, 32, 2)
    y, x = 40 - 16, 48 - 16
    assert np.array_equal(label > 0, planes[y : y + 32, x : x + 32] > 0)
    assert (sources["b"].truth(80, 96, 32)[..., 1] == 255).all()
    image, mask = make_dataset(recipe)[0]
    assert image.shape == (3, 32, 32)
    assert mask.shape == (2, 32, 32)
    assert mask.dtype == torch.float32


def test_a_label_with_one_id_per_pixel_serves_overlapping_classes(slides):
    classes = ClassTable.named(["disc", "unseen"], mode="overlapping")
    store, view = open_collection(slides / "store.zarr")["a"], View(1.0, None, 32, 0)
    plain = ClassTable.named(["disc", "unseen"])
    source = PatchSource.of(store, "annotations", classes=classes, view=view)
    ids = PatchSource.of(store, "annotations", classes=plain, view=view).truth(80, 96, 32)
    planes = source.truth(80, 96, 32)
    assert np.array_equal(planes[..., 0], ids == 1)
    more = ClassTable.named(["disc", "other"], mode="overlapping")
    partly = PatchSource.of(store, "annotations", classes=more, view=view).truth(80, 96, 32)
    assert (partly[..., 1] == 255).all()  # not annotated in this label
    none = ClassTable.named(["x", "other"], mode="overlapping")
    with pytest.raises(StoreError, match="expected x, other too"):
        PatchSource.of(store, "annotations", classes=none, view=view)


def test_both_are_trained_with_a_sigmoid_each(nested, tmp_path):
    recipe = load_recipe(nested / "recipe.yaml")
    report = train(recipe, tmp_path / "run", progress=Silent())
    _, card = load_checkpoint(report.checkpoint)
    assert card.classes.mode == "overlapping"
    assert {"val_slide_dice_disc", "val_slide_dice_core", "val_triplet"} <= set(card.scores)
    assert 0 <= card.scores["val_dice"] <= 1
    slides = list(open_collection(nested / "store.zarr"))
    sheet = tmp_path / "preview.png"
    preview_slides(slides, recipe, sheet, progress=Silent()).require_whole()
    assert sheet.stat().st_size


def test_an_unannotated_class_has_no_score_on_the_slide(nested, tmp_path):
    slides = open_collection(nested / "store.zarr")
    classes = load_recipe(nested / "recipe.yaml").class_table
    model = Model((Member(make_card(classes=classes, mpp=1.0), "toy"),))
    options = InferOptions(precision="fp32", device="cpu", batch=4)
    executor = SerialExecutor(model, options, load=load)
    infer_with(
        model, list(slides), tmp_path / "p.zarr", options, executor=executor, progress=Silent()
    )
    predictions = open_predictions(tmp_path / "p.zarr")
    scores = evaluate(predictions, slides)
    assert [(s.slide, s.class_name) for s in scores.slides] == [
        ("a", "disc"), ("a", "core"), ("b", "disc"), ("c", "disc"), ("c", "core"),
    ]  # fmt: skip
    assert set(slide_reliability(predictions["b"], slides["b"], label="annotations")) == {"disc"}
    rules = grid([0.5], (), (0.0,))
    found = slide_scores(predictions["b"], slides["b"], rules, label="annotations")
    assert found is not None
    assert found == pytest.approx([scores.slides[2].counts.dice])


def test_a_single_class_of_several_planes_can_be_trained(nested):
    (nested / "one.yaml").write_text(
        RECIPE.replace(RECIPE.splitlines()[1], "classes: [{name: core}]").replace(
            "validation: [c]", "validation: [c], train: [a]"
        )
    )
    _, mask = make_dataset(load_recipe(nested / "one.yaml"))[0]
    assert set(mask.unique().tolist()) <= {0, 1}
    both = "classes: [{name: disc}, {name: core}]"
    (nested / "both.yaml").write_text(RECIPE.replace(RECIPE.splitlines()[1], both))
    with pytest.raises(StoreError, match="a plane for each of its classes"):
        make_dataset(load_recipe(nested / "both.yaml"))


def test_impossible_settings_are_refused(nested):
    slides = open_collection(nested / "store.zarr")
    for reading in (
        Reading(class_names=("disc", "core"), covered=("disc",)),
        Reading(class_names=("disc", "core"), covered=("spot",), overlapping=True),
    ):
        with pytest.raises(ConfigError, match="overlapping"):
            annotate(slides, [nested / "b.geojson"], reading=reading)
