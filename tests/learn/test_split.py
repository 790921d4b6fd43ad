import itertools
from dataclasses import replace

import numpy as np
import pytest

from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.learn.sampler import map_slides
from wsi_seg.learn.split import split_slides
from wsi_seg.masks.objects import read_objects, write_objects
from wsi_seg.store import create_collection, open_collection
from wsi_seg.testing.stores import write_image


def names(stores):
    return [store.name for store in stores]


def test_labelled_slides_are_split(recipe_for):
    (split,) = split_slides(recipe_for())
    assert names(split.train) == ["a", "b"]
    assert names(split.validation) == ["c"]


def test_a_fraction_is_drawn_by_the_seed(recipe_for):
    found: set[str] = set()
    for seed in range(20):
        recipe = recipe_for("data.validation=0.3", f"seed={seed}")
        (split,) = split_slides(recipe)
        assert names(split.validation) == names(split_slides(recipe)[0].validation)
        assert sorted(names(split.train) + names(split.validation)) == ["a", "b", "c"]
        found.add(*names(split.validation))
    assert found == {"a", "b", "c"}


def test_no_slides_held_out(recipe_for):
    assert names(split_slides(recipe_for("data.validation=0.0"))[0].validation) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.validation=[z]", r"data\.validation: got slide 'z'; there are a, b, c, d"),
        ("data.validation=[d]", r"'d' lacks data\.label"),
        ("data.validation=[a, b, c]", "no slide is left to train on"),
        ("data.validation=[a, a]", "each slide once"),
        ("data.train=[z]", r"data\.train: got slide 'z'"),
        ("data.label=glands", r"got 4 slides without label 'glands'; their labels are annotations"),
        ("data.stores=[store.zarr, store.zarr]", "each name once"),
    ],
)
def test_invalid_splits_are_explained(recipe_for, setting, message):
    with pytest.raises(ConfigError, match=message):
        split_slides(recipe_for(setting))


def test_one_slide_cannot_be_split_by_a_fraction(recipe_for):
    with pytest.raises(ConfigError, match=r"set data\.validation to 0"):
        split_slides(recipe_for("data.train=[a]", "data.validation=0.5"))
    with pytest.raises(ConfigError, match=r"in data\.train and data\.validation"):
        split_slides(recipe_for("data.train=[a, c]"))


def test_a_missing_collection_is_a_store_error(recipe_for):
    with pytest.raises(StoreError, match="wsi-seg tile"):
        split_slides(recipe_for("data.stores=[none.zarr]"))


def test_a_class_without_objects_is_reported(recipe_for):
    recipe = recipe_for("classes=[{name: disc}, {name: unseen}]")
    with pytest.raises(ConfigError, match="class unseen has no object"):
        map_slides(split_slides(recipe)[0].train, recipe)


def test_boxes_are_inside_their_slides(recipe_for):
    recipe = recipe_for()
    for one in map_slides(split_slides(recipe)[0].train, recipe):
        assert len(one.boxes) == len(one.class_ids) == 12
        assert one.boxes.min() >= 0
        assert (one.boxes[:, 2] <= one.extent.height).all()
        assert (one.boxes[:, 3] <= one.extent.width).all()
        assert one.cell_px == 64


def test_groups_are_merged_and_never_split(recipe_for, tmp_path):
    from wsi_seg.sampling.groups import group_slides

    table = tmp_path / "patients.csv"
    table.write_text("slide,group\na-1,P\na-2,P\nb-1,Q\nc-1,R\n")
    names = ["a-1", "a-2", "b-1", "c-1"]
    data = recipe_for(f"data.groups={table}").data
    assert group_slides(data, names) == {"a-1": "a-1", "a-2": "a-1"}
    both = data.model_copy(update={"group_pattern": r".*-(\d)"})
    assert set(group_slides(both, names).values()) == {"a-1"}
    with pytest.raises(ConfigError, match=r"no row for d-1"):
        group_slides(data, ["d-1"])
    with pytest.raises(ConfigError, match="does not match slide 'a-1'"):
        group_slides(recipe_for("data.group_pattern=([^_]+)_").data, ["a-1"])
    with pytest.raises(ConfigError, match="in brackets"):
        recipe_for("data.group_pattern=x")


@pytest.fixture
def patients(tmp_path):
    """Write slides of three patients, the second of each with pseudo-labels, and a recipe."""
    from shapely.geometry import box

    from wsi_seg.annotations import Annotation, Annotations
    from wsi_seg.classes import ClassTable
    from wsi_seg.config import load_recipe
    from wsi_seg.masks.labels import write_labels

    create_collection(tmp_path / "store.zarr")
    pixels = np.zeros((40, 50, 3), np.uint8)
    for patient, number in itertools.product("PQR", "12"):
        name = f"{patient}-{number}"
        write_image(tmp_path / "store.zarr" / name, pixels, {"kind": "slide"})
        source = "pseudo" if number == "2" else "expert"
        items = (Annotation(box(5, 5, 30, 30), "disc", source),)
        store = open_collection(tmp_path / "store.zarr")[name]
        write_labels(store, Annotations(items), ClassTable.named(["disc"]), "annotations")
    (tmp_path / "recipe.yaml").write_text(
        "classes: [{name: disc}]\nmpp: null\ndata: {stores: [store.zarr], group_pattern: '(.)-'}\n"
    )
    return lambda *settings: load_recipe(tmp_path / "recipe.yaml", settings)


@pytest.mark.parametrize("setting", ["data.folds=3", "data.validation=0.3"])
def test_pseudo_labels_of_a_held_out_patient_are_not_trained_on(patients, setting):
    for split in split_slides(patients(setting)):
        (held_out,) = names(split.validation)
        rest = {"P", "Q", "R"} - {held_out[0]}
        assert names(split.train) == sorted(f"{one}-{n}" for one in rest for n in "12")


def test_named_held_out_slides_may_not_split_a_group(patients):
    pattern = "data.group_pattern=.-(.)"
    (split,) = split_slides(patients("data.validation=[P-1, Q-1, R-1]", pattern))
    assert names(split.train) == ["P-2", "Q-2", "R-2"]
    with pytest.raises(ConfigError, match="some slides of a group, but not Q-1;"):
        split_slides(patients("data.validation=[P-1, R-1]", pattern))
    (split,) = split_slides(patients("data.validation=[P-1]", "data.train=[P-2, Q-2]", pattern))
    assert names(split.train) == ["P-2", "Q-2"]


@pytest.mark.parametrize("setting", ["data.folds=2", "data.validation=0.5"])
def test_slices_of_a_volume_are_never_split(patients, setting, caplog):
    """Neighbouring slices are nearly equal, whether or not the recipe has a group_pattern."""
    folder = patients().data.stores[0]
    for patient, number in itertools.product("PQR", "12"):
        (folder / f"{patient}-{number}").rename(folder / f"ct{number}_z000{'PQR'.index(patient)}")
    for store in open_collection(folder):
        objects = read_objects(store, "annotations")
        manual = replace(objects, source=np.full(len(objects), "expert"))
        write_objects(store.path / "labels" / "annotations", manual)
    alone = "data.group_pattern=null"
    for split in split_slides(patients(setting, alone)):
        held_out, trained = ({name[:3] for name in names(part)} for part in
                             (split.validation, split.train))  # fmt: skip
        assert len(held_out) == len(trained) == 1
        assert held_out != trained
    assert not caplog.messages
    split_slides(patients("data.validation=[ct1_z0001]", alone))
    assert "ct1_z0000, ct1_z0002: of the same volume" in caplog.text


def test_a_slide_may_count_as_one_object(recipe_for):
    train = split_slides(recipe_for())[0].train
    whole = map_slides(train, recipe_for("sampling.unit=slide"))
    single = map_slides(train, recipe_for())
    for one, many in zip(whole, single, strict=True):
        assert len(one.boxes) == 1 < len(many.boxes)
        assert (one.boxes[0, :2] == many.boxes[:, :2].min(axis=0)).all()
        assert (one.boxes[0, 2:] == many.boxes[:, 2:].max(axis=0)).all()
        assert one.areas.sum() == many.areas.sum()


def test_class_names_are_merged(slides, tmp_path):
    """Objects with two names are one class in maps, patches and scores."""
    import shutil

    from shapely.geometry import box

    from wsi_seg.annotations import Annotation, Annotations
    from wsi_seg.classes import ClassTable
    from wsi_seg.config import load_recipe
    from wsi_seg.data.source import PatchSource
    from wsi_seg.masks.labels import write_labels
    from wsi_seg.reading.view import View
    from wsi_seg.store import open_collection

    shutil.copytree(slides / "store.zarr", tmp_path / "store.zarr")
    for store in open_collection(tmp_path / "store.zarr"):
        items = tuple(
            Annotation(box(x, 0, x + 30, 20), name, "x")
            for x, name in ((0, "gn"), (40, "gs"), (80, "vessel"))
        )
        table = ClassTable.named(["gn", "gs", "vessel"])
        write_labels(store, Annotations(items, ()), table, "annotations")
    (tmp_path / "recipe.yaml").write_text(
        "classes: [{name: vessel}, {name: glomerulus, from: [gn, gs]}]\n"
        "data: {stores: [store.zarr], validation: 0.0}\nmpp: null\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    (split,) = split_slides(recipe)
    assert map_slides(split.train, recipe)[0].class_ids.tolist() == [2, 2, 1]
    source = PatchSource.of(
        split.train[0].store, "annotations", classes=recipe.class_table, view=View(None)
    )
    row = source.truth(10, 64, 128)[64 - 5]
    assert (row[[5, 35, 50, 75, 90]] == [2, 0, 2, 0, 1]).all()
    again = load_recipe(tmp_path / "recipe.yaml", ["classes.1.from=[gn, gone]"])
    with pytest.raises(StoreError, match="expected gone too"):
        PatchSource.of(
            split.train[0].store, "annotations", classes=again.class_table, view=View(None)
        )
    with pytest.raises(ConfigError, match="each name in one class"):
        load_recipe(tmp_path / "recipe.yaml", ["classes.0.from=[gn]"])


def test_the_weight_of_an_annotation_is_used_in_the_loss(slides, tmp_path):
    """Pixels inside an outline of weight .25 count a quarter."""
    import shutil

    import torch
    from shapely.geometry import box

    from wsi_seg.annotations import Annotation, Annotations
    from wsi_seg.classes import ClassTable
    from wsi_seg.config import load_recipe
    from wsi_seg.learn.losses.pixels import Pixels
    from wsi_seg.learn.patches import Patches
    from wsi_seg.learn.resume import Position
    from wsi_seg.masks.labels import write_labels
    from wsi_seg.store import open_collection

    shutil.copytree(slides / "store.zarr", tmp_path / "store.zarr")
    for store, counts in zip(
        open_collection(tmp_path / "store.zarr"), (0.25, 1, 1, 1), strict=True
    ):
        items = (Annotation(box(50, 50, 90, 80), "disc", "x", counts),)
        write_labels(store, Annotations(items, ()), ClassTable.named(["disc"]), "annotations")
    (tmp_path / "recipe.yaml").write_text(
        "classes: [{name: disc}]\ndata: {stores: [store.zarr], validation: 0.0}\nmpp: null\n"
        "patch_px: 64\nsampling: {mix: {objects: 1}}\naugment: light\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    (split,) = split_slides(recipe)
    patches = Patches(recipe, split, Position())
    seen: set[float] = set()
    for item in range(60):
        _, label, weight = patches._dataset[item]
        assert weight.shape == label.shape
        inside = weight[label == 1]
        if inside.numel():
            seen.add(round(float(inside.mean()), 2))
        assert (weight[label == 0] == 1).all()
    assert seen == {0.25, 1.0}
    px = Pixels.of(torch.zeros(1, 1, 64, 64), label[None], weight=weight[None])
    assert px.weight is not None
    assert torch.equal(px.weight[0, 0], weight)
