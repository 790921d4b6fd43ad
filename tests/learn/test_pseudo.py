import json
import shutil

import numpy as np
import pytest
import torch

from tests.commands import run_json
from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.config import load_recipe
from wsi_seg.data.source import PatchSource
from wsi_seg.errors import BatchError, ConfigError, OutputError
from wsi_seg.geometry import Region
from wsi_seg.learn.dataset import make_dataset
from wsi_seg.learn.patches import Patches
from wsi_seg.learn.pseudo import PseudoOptions, write_pseudo_labels
from wsi_seg.learn.resume import Position
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.train import train
from wsi_seg.masks import read_objects
from wsi_seg.progress import Silent
from wsi_seg.reading.view import View
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
    writer,
)
from wsi_seg.testing.stores import write_image

CLASSES = ClassTable.named(["other", "disc"])


def write_prediction(collection, slide, probability):
    """Write a prediction at half the resolution, with a class that the recipe lacks."""
    group, classes = collection / slide.name, CLASSES.to_json()
    pixels = np.stack([255 - probability, probability], axis=-1)
    write_image(group, pixels, {"kind": "prediction", "classes": classes}, downsample=2.0)
    label, about = group / "labels" / "prediction", {"kind": "label", "classes": classes}
    write_image(label, np.zeros_like(probability), about, downsample=2.0)


@pytest.fixture
def world(slides, tmp_path):
    """Copy the slides, and write a recipe and predictions of a, c and d."""
    shutil.copytree(slides / "store.zarr", tmp_path / "store.zarr")
    (tmp_path / "recipe.yaml").write_text(
        """
classes: [{name: disc}]
data: {stores: [store.zarr], validation: [c]}
mpp: 1.0
patch_px: 32
sampling: {patches_per_epoch: 16, mix: {objects: 0.6, tissue: 0.4}}
model: {encoder: tu-test_efficientnet, weights: null}
train: {epochs: 1, batch_size: 8, precision: fp32, workers: 0}
"""
    )
    create_collection(tmp_path / "pred.zarr")
    store = open_collection(tmp_path / "store.zarr")
    for name in "acd":
        extent = store[name].pyramid.extent
        probability = np.zeros((-(-extent.height // 2), -(-extent.width // 2)), dtype=np.uint8)
        probability[10:20, 30:50] = 250
        probability[20:25, 30:50] = 128
        write_prediction(tmp_path / "pred.zarr", store[name], probability)
    return tmp_path


def write(world, *settings, **options):
    return write_pseudo_labels(
        open_predictions(world / "pred.zarr"),
        open_collection(world / "store.zarr"),
        load_recipe(world / "recipe.yaml", settings),
        PseudoOptions(**options),
        progress=Silent(),
    )


def only(world, name):
    for path in (world / "pred.zarr").iterdir():
        if path.is_dir() and path.name != name:
            shutil.rmtree(path)


def whole(label, level=0):
    extent = label.pyramid.extents[level]
    region = Region(level=level, y=0, x=0, height=extent.height, width=extent.width)
    return label.read(region)


def test_held_out_and_annotated_slides_are_refused(world):
    before = read_objects(open_collection(world / "store.zarr")["a"], "annotations").source
    report = write(world)
    assert (list(report.objects), list(report.failures)) == (["d"], ["a", "c"])
    with pytest.raises(BatchError) as caught:
        report.require_whole()
    assert caught.value.done == 1
    assert "slide 'c' is held out for validation" in caught.value.failures["c"]
    assert "not overwritten" in caught.value.failures["a"]
    store = open_collection(world / "store.zarr")
    assert list(read_objects(store["a"], "annotations").source) == list(before)
    assert TrainingSlide.of(store["d"], "annotations").is_pseudo
    assert not TrainingSlide.of(store["a"], "annotations").is_pseudo


def test_pixels_are_confident_or_ignored(world):
    only(world, "d")
    assert write(world).objects == {"d": 1}
    slide = open_collection(world / "store.zarr")["d"]
    label = slide.label("annotations")
    ids = whole(label)
    expected = np.zeros_like(ids)
    expected[20:40, 60:100] = 1
    expected[40:50, 60:100] = 255
    assert (ids == expected).mean() > 0.98  # an odd side is not exactly halved
    assert set(np.unique(ids)) == {0, 1, 255}
    objects = read_objects(slide, "annotations")
    assert list(objects.source) == ["pseudo"]
    assert list(objects.class_name) == ["disc"]
    assert objects.bbox[0] == pytest.approx([20, 60, 40, 100], abs=1)
    assert (whole(label, 1) == expected[::2, ::2]).mean() > 0.97
    # A second round with the same predictions changes nothing; another threshold replaces it.
    assert write(world).objects == {"d": 1}
    write(world, low=0.6)
    again = open_collection(world / "store.zarr")["d"].label("annotations")
    assert set(np.unique(whole(again))) == {0, 1}


def test_tiles_without_foreground_may_be_ignored(world):
    only(world, "d")
    write(world, foreground_only=True)
    ids = whole(open_collection(world / "store.zarr")["d"].label("annotations"))
    assert (ids[100:, 130:] == 255).all()  # tiles of 32 px of the prediction, 64 px here
    assert (ids[2:18, 2:60] == 0).all()
    assert (ids == 1).sum() > 700


def test_without_objects_there_is_no_label(world):
    only(world, "d")
    assert write(world, high=0.99).objects == {"d": 0}
    assert "annotations" not in open_collection(world / "store.zarr")["d"].label_names()


def test_pseudo_labels_stay_until_the_next_ones_are_complete(world, monkeypatch):
    only(world, "d")
    write(world)

    def fail(*_, **__):
        raise OutputError("the disk is full")

    with monkeypatch.context() as context:
        context.setattr(writer, "write_digests", fail)
        with pytest.raises(BatchError, match="the disk is full"):
            write(world, low=0.6).require_whole()
    slide = open_collection(world / "store.zarr")["d"]
    assert set(np.unique(whole(slide.label("annotations")))) == {0, 1, 255}
    assert TrainingSlide.of(slide, "annotations").is_pseudo


def test_pseudo_labels_of_an_earlier_round_are_deleted_if_nothing_is_confident(world):
    only(world, "d")
    write(world)
    assert write(world, high=0.99).objects == {"d": 0}
    slide = open_collection(world / "store.zarr")["d"]
    assert "annotations" not in slide.label_names()
    assert not (slide.path / "labels" / "annotations").exists()
    listed = json.loads((slide.path / "labels" / "zarr.json").read_text())["attributes"]["ome"]
    assert "annotations" not in listed["labels"]
    assert write(world).objects == {"d": 1}
    assert TrainingSlide.of(slide, "annotations").is_pseudo
    assert "annotations" in slide.label_names()


def test_pseudo_labels_are_for_training_and_never_for_scoring(world):
    only(world, "d")
    path = world / "recipe.yaml"
    before = {}
    for seed in range(5):
        recipe = load_recipe(path, ("data.validation=0.3", f"seed={seed}"))
        before[seed] = [store.name for store in split_slides(recipe)[0].validation]
    write(world)
    for seed, names in before.items():
        recipe = load_recipe(world / "recipe.yaml", ("data.validation=0.3", f"seed={seed}"))
        (split,) = split_slides(recipe)
        assert [s.name for s in split.validation] == names
        assert "d" in [s.name for s in split.train]
    for split in split_slides(
        load_recipe(
            world / "recipe.yaml",
            (
                "data.validation=0.2",
                "data.folds=3",
            ),
        )
    ):
        assert "d" in [s.name for s in split.train]
        assert "d" not in [s.name for s in split.validation]
    with pytest.raises(ConfigError, match="slides d have pseudo-labels only"):
        split_slides(load_recipe(world / "recipe.yaml", ("data.validation=[d]",)))


def test_pseudo_labels_have_the_weight_of_the_recipe(world):
    only(world, "d")
    write(world)
    torch.set_num_threads(1)
    losses = []
    for weight in (0.0, 1.0):
        recipe = load_recipe(
            world / "recipe.yaml",
            (f"data.pseudo_weight={weight}", "data.train=[d]", "loss={bce: 1}"),
        )
        report = train(recipe, world / f"run-{weight}", progress=Silent())
        losses.append(report.best.metrics.read_text().splitlines()[1].split(",")[1])
    assert float(losses[0]) == 0
    assert float(losses[1]) > 0


def test_invalid_thresholds_are_explained(world):
    with pytest.raises(ConfigError, match="expected 0 <= low <= high <= 1"):
        PseudoOptions(high=0.2, low=0.3)
    with pytest.raises(ConfigError, match="got fold 7"):
        write_pseudo_labels(
            open_predictions(world / "pred.zarr"),
            open_collection(world / "store.zarr"),
            load_recipe(world / "recipe.yaml"),
            PseudoOptions(),
            fold=7,
            progress=Silent(),
        )


def test_soft_labels_are_probabilities(world):
    only(world, "d")
    write(world, soft=True, low=0.1, high=0.9)
    assert open_collection(world / "store.zarr")["d"].label_names() == ("annotations",)
    recipe = load_recipe(world / "recipe.yaml", ("mpp=0.5", "data.pseudo_weight=0.25"))
    stores = open_collection(world / "store.zarr")
    sources = [
        PatchSource.of(stores[name], "annotations", classes=recipe.class_table, view=View(0.5))
        for name in "ad"
    ]
    assert sources[0].soft is None
    _, label = sources[1].patch(45.0, 80.0, 32)  # rows 29 to 61, columns 64 to 96
    assert label.shape == (32, 32, 2)
    assert set(np.unique(label[:11, :, 1])) == {250}
    assert set(np.unique(label[12:20, :, 1])) == {128}
    assert (label[12:20, :, 0] == 255).all()
    report = train(recipe, world / "run", progress=Silent())
    assert report.best.epochs == 1


def test_soft_and_hard_labels_share_a_batch(world):
    only(world, "d")
    write(world, soft=True)
    recipe = load_recipe(world / "recipe.yaml")
    patches = Patches(recipe, split_slides(recipe)[0], Position())._dataset
    items = [patches[index] for index in range(16)]
    assert {tuple(label.shape) for _, label, _ in items} == {(1, 32, 32)}
    assert {float(weight) for _, _, weight in items} == {1.0, 0.5}
    for _, label, weight in items:
        values = label[~label.isnan()].unique()
        assert weight == 0.5 or set(values.tolist()) <= {0.0, 1.0}


def test_exclusive_classes_are_background_by_their_sum(world):
    """Two classes of 60 each leave 135: each would be background, but not their sum."""
    exclusive = ClassTable.named(["other", "disc"], mode="exclusive")
    store = open_collection(world / "store.zarr")["d"]
    extent = store.pyramid.extent
    found = np.zeros((-(-extent.height // 2), -(-extent.width // 2), 2), dtype=np.uint8)
    found[10:20, 30:50] = 60
    found[20:25, 30:50, 1] = 200
    found[25:30, 30:50] = (100, 90)
    only(world, "")
    write_image(
        world / "pred.zarr" / "d",
        found,
        {"kind": "prediction", "classes": exclusive.to_json()},
        downsample=2.0,
    )
    classes = "classes=[{name: other}, {name: disc}]"
    write(world, classes, soft=True, high=0.7, low=0.3).require_whole()
    label = open_collection(world / "store.zarr")["d"].label("annotations")
    ids = whole(label, 1)
    assert set(np.unique(ids[10:20, 30:50])) == {255}
    assert set(np.unique(ids[20:25, 30:50])) == {2}
    assert set(np.unique(ids[25:30, 30:50])) == {255}
    assert ids[:10].max() == 0


def test_soft_labels_ignore_no_pixels_by_default(world):
    only(world, "d")
    write(world, soft=True)
    slide = open_collection(world / "store.zarr")["d"]
    ids = whole(slide.label("annotations"))
    assert set(np.unique(ids)) == {0, 1}
    assert (ids[42:48, 62:98] == 1).all()  # 128 of 255 is more than half
    recipe = load_recipe(world / "recipe.yaml", ("data.train=[d]", "augment=d4"))
    dataset = make_dataset(recipe)
    values = torch.cat([dataset[index][1] for index in range(len(dataset))]).unique()
    # Flips and rotations do not interpolate probabilities.
    assert {round(255 * float(value)) for value in values} == {0, 128, 250}
    write(world, soft=True, low=0.3)
    assert IGNORE in whole(open_collection(world / "store.zarr")["d"].label("annotations"))


OVERLAPPING = "classes={mode: overlapping, table: [{name: disc}, {name: other}]}"


@pytest.fixture
def overlapping(world):
    """Write a prediction of d only: discs inside discs, at half the resolution."""
    classes = ClassTable.named(["other", "disc"], mode="overlapping")
    store = open_collection(world / "store.zarr")["d"]
    extent = store.pyramid.extent
    found = np.zeros((-(-extent.height // 2), -(-extent.width // 2), 2), dtype=np.uint8)
    found[10:30, 30:50, 1] = 250
    found[15:20, 35:45, 0] = 240
    found[20:25, 35:45, 0] = 128
    only(world, "")
    write_image(
        world / "pred.zarr" / "d",
        found,
        {"kind": "prediction", "classes": classes.to_json()},
        downsample=2.0,
    )
    return world


@pytest.mark.parametrize("soft", [False, True])
def test_overlapping_classes_are_thresholded_independently(overlapping, soft):
    options = {"high": 0.7, "low": 0.3} if soft else {}
    report = write(overlapping, OVERLAPPING, soft=soft, **options)
    report.require_whole()
    assert report.objects == {"d": 2}
    slide = open_collection(overlapping / "store.zarr")["d"]
    disc, other = np.moveaxis(whole(slide.planes("annotations"), 1), -1, 0)
    assert (disc[10:30, 30:50] == 1).all()
    assert set(np.unique(disc)) == {0, 1}
    assert (other[15:20, 35:45] == 2).all()
    assert (other[20:25, 35:45] == 255).all()
    assert (other == 0).sum() == other.size - 100
    objects = read_objects(slide, "annotations")
    assert list(objects.class_name) == ["disc", "other"]
    settings = (OVERLAPPING, "data.train=[d]", "data.validation=0", "augment=none")
    recipe = load_recipe(overlapping / "recipe.yaml", settings)
    dataset = make_dataset(recipe)
    labels = torch.stack([dataset[index][1] for index in range(len(dataset))])
    known = labels[~labels.isnan()]
    assert labels[:, 0].isnan().sum() == 0 < labels[:, 1].isnan().sum()
    expected = {0.0, 240 / 255, 250 / 255} if soft else {0.0, 1.0}
    assert set(known.unique().tolist()) == {float(np.float32(value)) for value in expected}


def test_a_student_is_trained_on_soft_labels_of_overlapping_classes(overlapping):
    write(overlapping, OVERLAPPING, soft=True).require_whole()
    settings = (OVERLAPPING, "data.train=[d]", "data.validation=0", "data.pseudo_weight=1")
    recipe = load_recipe(overlapping / "recipe.yaml", settings)
    report = train(recipe, overlapping / "run", progress=Silent())
    assert report.best.epochs == 1
    assert np.isfinite(float(report.best.metrics.read_text().splitlines()[1].split(",")[1]))


def test_overlapping_classes_become_exclusive_ids_for_an_exclusive_recipe(overlapping):
    exclusive = "classes=[{name: disc}, {name: other}]"
    write(overlapping, exclusive).require_whole()
    label = open_collection(overlapping / "store.zarr")["d"].label("annotations")
    ids = whole(label, 1)
    assert (ids[10:30, 30:50] == 1).all()  # the outer disc has the higher probability
    report = write(overlapping, exclusive, soft=True)
    assert "from a model with overlapping classes" in report.failures["d"]


def test_a_student_may_use_pseudo_labels_on_annotated_slides(world):
    """Under a separate label name; the manual label is kept."""
    before = whole(open_collection(world / "store.zarr")["a"].label("annotations"))
    settings = ("--set", "data.label=taught", "--set", "data.validation=0")
    found = run_json(
        "pseudo", world / "pred.zarr", world / "store.zarr", "--recipe", world / "recipe.yaml",
        "--soft", *settings,
    )  # fmt: skip
    assert found["objects"] == {"a": 1, "c": 1, "d": 1}
    slide = open_collection(world / "store.zarr")["a"]
    assert set(slide.label_names()) == {"annotations", "taught"}
    assert np.array_equal(whole(slide.label("annotations")), before)
    recipe = load_recipe(world / "recipe.yaml", settings[1::2])
    (split,) = split_slides(recipe)
    assert [one.name for one in split.train] == ["a", "c", "d"]
    assert all(one.is_pseudo for one in split.train)
    with pytest.raises(ConfigError, match="no slide has manual annotations"):
        split_slides(load_recipe(world / "recipe.yaml", (settings[1], "data.validation=0.3")))
