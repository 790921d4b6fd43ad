"""Overlapping classes after the network: planes on disk, decisions, scores, exports."""

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from shapely.geometry import box

from tests.cards import make_card
from tests.makers.memory import PixelPredictor
from wsi_seg.annotations import Annotation, Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError, StoreError
from wsi_seg.evaluation.ablation import ablate_members
from wsi_seg.evaluation.calibration import slide_reliability
from wsi_seg.evaluation.compare import evaluate, usual_measures
from wsi_seg.evaluation.hard_negatives import hard_px
from wsi_seg.evaluation.maps import write_maps
from wsi_seg.evaluation.recalibrate import Calibration, write_calibrated
from wsi_seg.evaluation.review_objects import list_review_objects
from wsi_seg.evaluation.search import grid, slide_scores
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.geometry import Extent
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.masks.labels import write_labels
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.label_map import predicted_label, predicted_planes
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import argmax_strips
from wsi_seg.postprocess.write import write_decision
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection, open_predictions
from wsi_seg.store.class_view import class_views
from wsi_seg.testing.stores import make_store, write_image
from wsi_seg.viewer.layers import slide_layers

CLASSES = ClassTable.named(["cell", "spot"], mode="overlapping")
MODEL = Model((Member(make_card(classes=CLASSES), "toy"),))
HEIGHT, WIDTH = 300, 210


def two_colours(tiles):
    return np.stack([tiles[..., 0], tiles[..., 1]], axis=1).astype(np.float32) / 255


def load(member, options, compiled):
    return PixelPredictor(two_colours, channels=2)


def square(y, x, side, name):
    return Annotation(box(x, y, x + side, y + side), name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One slide with nested truth, and its predictions saved in each way."""
    root = tmp_path_factory.mktemp("overlapping")
    make_store(root / "s.zarr", "one", HEIGHT, WIDTH)
    slides = open_collection(root / "s.zarr")
    items = (
        square(20, 20, 100, "cell"), square(50, 50, 20, "spot"), square(150, 90, 90, "cell"),
        square(200, 100, 30, "ignore"), square(260, 10, 30, "spot"),
    )  # fmt: skip
    write_labels(slides["one"], Annotations(items, ()), CLASSES, "annotations")
    for save in ("both", "labels", "probabilities"):
        options = InferOptions(precision="fp32", device="cpu", batch=4, save=save)
        executor = SerialExecutor(MODEL, options, load=load)
        infer_with(MODEL, list(slides), root / save, options, executor=executor, progress=Silent())
    return root


def prediction(world, save="both"):
    return open_predictions(world / save)["one"]


def truth(world):
    return open_collection(world / "s.zarr")["one"]


def planes_of(world):
    """Ids found, and true ones, ``(H, W, 2)``."""
    found = (prediction(world).probabilities[:, :] > 127) * np.array([1, 2])
    true = np.zeros((HEIGHT, WIDTH, 2), dtype=int)
    true[20:120, 20:120, 0] = true[150:240, 90:180, 0] = 1
    true[50:70, 50:70, 1] = true[260:290, 10:40, 1] = 2
    true[200:230, 100:130] = 255
    return found, true


def dice(found, true, number):
    counted = true != 255
    a, b = (found == number) & counted, (true == number) & counted
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("save", ["both", "labels", "probabilities"])
def test_each_class_is_decided_in_its_own_plane(world, save):
    store, (expected, _) = prediction(world, save), planes_of(world)
    assert (expected > 0).all(axis=2).any()  # some pixels have both
    label = predicted_planes(store)
    assert label.channels == 2
    assert label.classes == CLASSES
    assert np.array_equal(label[:, :], expected)
    for level, extent in enumerate(label.pyramid.extents):
        assert set(np.unique(label.read(extent.region(level)))) <= {0, 1, 2}
    with pytest.raises(StoreError, match="a plane for each of its classes"):
        predicted_label(store)
    for number, view in enumerate(class_views(store), 1):
        assert view.image.classes.names == (CLASSES.names[number - 1],)
        alone = predicted_label(view)
        assert np.array_equal(alone[:, :], expected[..., number - 1] == number)


def test_truth_is_drawn_class_by_class(world):
    _, true = planes_of(world)
    assert np.array_equal(truth(world).planes("annotations")[:, :], true)
    with pytest.raises(StoreError, match="a plane for each of its classes"):
        truth(world).label("annotations")


def test_scores_are_those_of_each_class_alone(world):
    found, true = planes_of(world)
    predictions, slides = open_predictions(world / "both"), open_collection(world / "s.zarr")
    scores = evaluate(predictions, slides, measures=usual_measures(predictions))
    assert [score.class_name for score in scores.slides] == ["cell", "spot"]
    for number, score in enumerate(scores.slides, 1):
        expected = dice(found[..., number - 1], true[..., number - 1], number)
        assert score.counts.dice == pytest.approx(expected)
        assert score.objects is not None
    labels_only = evaluate(open_predictions(world / "labels"), slides)
    assert [s.counts for s in labels_only.slides] == [s.counts for s in scores.slides]
    values = slide_reliability(predictions["one"], slides["one"], label="annotations")
    counted = (true[..., 1] != 255).sum()
    assert values["spot"].counts.sum() == counted
    assert values["spot"].counts[:, 1].sum() == (true[..., 1] == 2).sum()


def test_a_rule_decides_each_class_alone_and_search_scores_it_so(world):
    store = prediction(world)
    rule = Rule(0.6, 0.6, min_object_area=40, max_hole_area=9, unit="px")
    label = write_decision(store, rule)
    assert label.channels == 2
    extent = Extent(height=HEIGHT, width=WIDTH)
    for number, view in enumerate(class_views(store), 1):
        strips = decide(argmax_strips(view.image), rule, px_area=1, extent=extent)()
        alone = np.concatenate([strip.ids for strip in strips])
        assert np.array_equal(label[:, :][..., number - 1], alone * number)
    assert write_decision(store, rule).attributes["rule"] == label.attributes["rule"]
    _, true = planes_of(world)
    rules = grid([0.3, 0.5, 0.6], (), (0.0,))
    scores = slide_scores(store, truth(world), rules, label="annotations")
    assert scores is not None
    for one, score in zip(rules, scores, strict=True):
        found = (store.probabilities[:, :] > 255 * one.thresholds()[1]) * np.array([1, 2])
        expected = [dice(found[..., n - 1], true[..., n - 1], n) for n in (1, 2)]
        assert score == pytest.approx(np.mean(expected))


def test_exports_have_the_objects_of_each_class(world, tmp_path):
    predictions, (found, _) = open_predictions(world / "both"), planes_of(world)
    report = export(
        predictions,
        open_collection(world / "s.zarr"),
        ExportTargets(
            geojson=tmp_path, coco=tmp_path / "c.json", rle=tmp_path / "r.csv", table=tmp_path,
            ome_tiff=tmp_path, overview=tmp_path / "o", ome_zarr=tmp_path, min_area_um2=0,
        ),
    )  # fmt: skip
    report.require_whole()
    features = json.loads((tmp_path / "one.geojson").read_text())["features"]
    names = [one["properties"]["classification"]["name"] for one in features]
    assert set(names) == {"cell", "spot"}
    coco = json.loads((tmp_path / "c.json").read_text())
    assert {one["category_id"] for one in coco["annotations"]} == {1, 2}
    assert len(coco["annotations"]) == len(names)
    with (tmp_path / "r.csv").open() as file:
        rows = {row["class"]: row["rle"].split() for row in csv.DictReader(file)}
    for number, name in enumerate(CLASSES.names, 1):
        px = sum(map(int, rows[name][1::2]))
        assert px == (found[..., number - 1] == number).sum()
    with (tmp_path / "one.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["class_name"] for row in table].count("spot") == names.count("spot")
    assert [int(row["id"]) for row in table] == list(range(1, len(table) + 1))
    labels = tifffile.imread(tmp_path / "one.labels.ome.tif")
    assert np.array_equal(np.moveaxis(labels, 0, -1), found)
    numbers = np.asarray(zarr.open_array(tmp_path / "one.ome.zarr/labels/objects/0")[...])
    assert np.array_equal(np.moveaxis(numbers > 0, 0, -1), found > 0)
    assert set(np.unique(numbers)) == set(range(len(table) + 1))
    with pytest.raises(BatchError, match="its classes overlap, but --spatialdata hold one id"):
        export(predictions, None, ExportTargets(spatialdata=tmp_path)).require_whole()


def test_a_png_is_written_of_each_class(world, tmp_path):
    report = export(open_predictions(world / "both"), None, ExportTargets(png=tmp_path))
    report.require_whole()
    found, _ = planes_of(world)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "one.1-cell.png",
        "one.2-spot.png",
    ]
    for number, name in enumerate(CLASSES.names, 1):
        with Image.open(tmp_path / f"one.{number}-{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), found[..., number - 1] == number)
            shown = np.asarray(picture.convert("RGB"))
        assert (shown[found[..., number - 1] == number] == CLASSES.entries[number - 1].rgb).all()


def test_a_calibrated_prediction_has_planes_too(world, tmp_path):
    store = prediction(world)
    values = slide_reliability(store, truth(world), label="annotations")
    calibration = Calibration.fit(values, "temperature")
    write_calibrated(
        open_predictions(world / "both"), calibration, tmp_path / "c.zarr", progress=Silent()
    ).require_whole()
    after = open_predictions(tmp_path / "c.zarr")["one"]
    expected = (after.probabilities[:, :] > 127) * np.array([1, 2])
    assert np.array_equal(after.planes("prediction")[:, :], expected)


def test_the_viewer_and_reviews_show_each_class(world):
    slide, found = truth(world), prediction(world)
    layers = slide_layers(slide, found, "annotations")
    shown = {"probability-0", "probability-1", "errors-0", "errors-1", "found-prediction-0",
             "found-prediction-1", "label-annotations-0", "label-annotations-1"}  # fmt: skip
    assert shown <= set(layers)
    region = Extent(height=HEIGHT, width=WIDTH).region()
    pixels = layers["errors-1"].read(region)
    assert np.array_equal(pixels[..., 0], found.probabilities[:, :][..., 1])
    _, true = planes_of(world)
    assert np.array_equal(pixels[..., 1] == 255, true[..., 1] == 2)
    objects = list_review_objects(slide, found, slide.planes("annotations"))
    assert {one.class_name for one in objects} == {"cell", "spot"}
    assert [one.id for one in objects] == list(range(len(objects)))
    drawn = list_review_objects(slide, None, slide.planes("annotations"))
    assert [one.class_name for one in drawn] == ["cell", "cell", "spot", "spot"]


def test_members_are_compared_class_by_class(world, tmp_path):
    """The mean with a member that finds nothing finds what is certain: 255 of 255."""
    both = open_predictions(world / "both")
    group = tmp_path / "none.zarr" / "one"
    create_collection(tmp_path / "none.zarr")
    about = dict(both["one"].attributes)
    write_image(group, np.zeros((HEIGHT, WIDTH, 2), np.uint8), about)
    members = [both, open_predictions(tmp_path / "none.zarr")]
    report = ablate_members(
        members, open_collection(world / "s.zarr"), label="annotations", variance=both,
        progress=Silent(),
    )  # fmt: skip
    found, true = planes_of(world)
    certain = (both["one"].probabilities[:, :] == 255) * np.array([1, 2])
    for number, name in enumerate(CLASSES.names, 1):
        expected = dice(found[..., number - 1], true[..., number - 1], number)
        together = dice(certain[..., number - 1], true[..., number - 1], number)
        first, second = (one for one in report.contributions if one.class_name == name)
        assert (first.alone, second.alone) == (pytest.approx(expected), 0)
        assert report.dice[name] == pytest.approx(together)
        assert second.gain == pytest.approx(together - expected)
    half = both["one"].probabilities[:, :].max(axis=-1).astype(float) / 2
    variance = both["one"].label("variance")[:, :]
    assert np.abs(variance - (half / 127.5) ** 2 * 255).max() <= 1


def test_a_map_of_errors_shows_the_worst_of_the_classes(world):
    store = prediction(world)
    write_maps(store, truth(world), label="annotations", found_label="prediction")
    found, true = planes_of(world)
    states = np.zeros(found.shape, int)
    states[(found > 0) & (found == true)] = 1
    states[(found > 0) & (found != true)] = 2
    states[(found == 0) & (true > 0)] = 3
    states[true == 255] = 0
    assert np.array_equal(prediction(world).label("errors")[:, :], states.max(axis=-1))
    assert {"energy", "uncertainty"} <= set(prediction(world).label_names())


def test_mistakes_are_mined_class_by_class(world):
    """A false spot inside a true cell is a hard negative, and so is a false cell elsewhere."""
    confidence, _ = hard_px(prediction(world), truth(world), label="annotations", ring_um=0, cap=1)
    values, (_, true) = prediction(world).probabilities[:, :], planes_of(world)
    false = np.where((values >= 128) & (true == 0), values, 0).max(axis=-1)
    assert np.array_equal(confidence, false)
    assert (confidence[21:49, 21:49] > 0).any()  # inside a cell
