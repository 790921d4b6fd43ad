"""A part of a slide is scored and exported alone, at the places it has on the slide."""

import json

import numpy as np
import pytest
import shapely
from PIL import Image

from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError
from wsi_seg.evaluation.compare import Scoring
from wsi_seg.evaluation.scores import Counts, Measures
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.masks.inside import Inside
from wsi_seg.postprocess.rule import fixed
from wsi_seg.store import (
    LabelInfo,
    PredictionInfo,
    StoreInfo,
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

HEIGHT, WIDTH = 1301, 903
CLASSES = ClassTable.named(["gland"])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A slide with random truth, and a prediction of it at half its size."""
    folder, rng = tmp_path_factory.mktemp("inside"), np.random.default_rng(3)
    for name in ("s.zarr", "p.zarr"):
        create_collection(folder / name)
    blocks = rng.integers(0, 2, (-(-HEIGHT // 100), -(-WIDTH // 100)), np.uint8)
    true = blocks.repeat(100, 0).repeat(100, 1)[:HEIGHT, :WIDTH]
    found = np.roll(true, 30, axis=(0, 1))[::2, ::2].copy()
    slide, prediction = folder / "s.zarr/a", folder / "p.zarr/a"
    write_image(slide, np.zeros((HEIGHT, WIDTH, 3), np.uint8), StoreInfo().to_json())
    write_image(slide / "labels/annotations", true, LabelInfo(classes=CLASSES).to_json())
    about = PredictionInfo(slide="a", classes=CLASSES, slide_extent=(HEIGHT, WIDTH))
    write_image(prediction, found[..., None] * np.uint8(200), about.to_json(), downsample=2.0)
    label = LabelInfo(classes=CLASSES, slide_extent=(HEIGHT, WIDTH)).to_json()
    write_image(prediction / "labels/prediction", found, label, downsample=2.0)
    return open_predictions(folder / "p.zarr"), open_collection(folder / "s.zarr"), found, true


@pytest.mark.parametrize(
    "part", [("gland", None), (None, "250,401,300,333"), ("gland", "0,0,99,500")]
)
def test_only_pixels_inside_are_scored(work, part):
    predictions, slides, found, true = work
    inside = Inside.parse(*part)
    scoring = Scoring(predictions, slides, "annotations", None, Measures(), inside=inside)
    (score,) = scoring.run().slides
    extent = slides["a"].pyramid.extent
    there = inside.rows(slides["a"], extent, extent)[1::2, 1::2]
    there = np.pad(there, [(0, a - b) for a, b in zip(found.shape, there.shape, strict=True)])
    mine, theirs = found[there] > 0, true[::2, ::2][there] > 0
    expected = Counts((mine & theirs).sum(), (mine & ~theirs).sum(), (~mine & theirs).sum())
    whole = Scoring(predictions, slides, "annotations", None, Measures()).run().slides[0].counts
    border = 2 * sum(found.shape)  # a pixel of the prediction is where one of the slide's is
    for name in ("tp", "fp", "fn"):
        assert abs(getattr(score.counts, name) - getattr(expected, name)) <= border
    assert score.counts.tp + score.counts.fp < whole.tp + whole.fp
    report = scoring.run()
    assert report.to_json()["inside"] == inside.description
    assert f"only inside {inside.description}:" in report.lines()


def test_without_the_class_a_slide_is_named(work):
    predictions, slides, _, _ = work
    inside = Inside.parse("nerve")
    with pytest.raises(BatchError) as caught:
        Scoring(predictions, slides, "annotations", None, Measures(), inside=inside).run()
    assert "got class 'nerve'; label 'annotations' has gland" in caught.value.failures["a"]


@pytest.mark.parametrize("rule", [None, fixed(0.5)])
def test_only_what_is_inside_is_exported_where_it_is(work, tmp_path, rule):
    predictions, slides, found, _ = work
    x, y, width, height = 250, 400, 300, 334
    box = Inside.parse(bbox=f"{x},{y},{width},{height}")
    for name, inside in (("part", box), ("whole", None)):
        folder = tmp_path / name
        targets = ExportTargets(
            geojson=folder, png=folder, table=folder, coco=folder / "c.json", rle=folder / "r.csv",
            ome_tiff=folder, simplify_um=0, min_area_um2=0, rule=rule, inside=inside,
        )  # fmt: skip
        export(predictions, slides, targets).require_whole()
    expected = np.zeros_like(found)
    rows, columns = slice(y // 2, (y + height) // 2), slice(x // 2, (x + width) // 2)
    expected[rows, columns] = found[rows, columns]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "part/a.png")), expected)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "whole/a.png")), found)
    areas = {}
    for name in ("part", "whole"):
        features = json.loads((tmp_path / name / "a.geojson").read_text())["features"]
        areas[name] = shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in features])
        coco = json.loads((tmp_path / name / "c.json").read_text())
        assert len(coco["annotations"]) == len(features)
    cut = shapely.intersection(areas["whole"], shapely.box(x, y, x + width, y + height))
    assert shapely.symmetric_difference(cut, areas["part"]).area <= 2 * (width + height)
    assert 0 < areas["part"].area < areas["whole"].area / 4
