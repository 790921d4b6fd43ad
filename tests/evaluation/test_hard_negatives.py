"""Hard negatives: only sure errors away from truth, only of slides the model did not see."""

import json
import shutil

import numpy as np
import pytest

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.annotations import Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError
from wsi_seg.evaluation.hard_negatives import HardRule, _capped, mine
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.labels import write_labels
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

EXTENT = Extent(height=160, width=240)


@pytest.fixture
def world(tmp_path):
    """A slide with a square of truth, and a prediction at half its resolution."""
    write_coordinate_tiff(tmp_path / "a.tif", extents=[EXTENT], mpp=0.5)
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", progress=Silent())
    ring = [[40, 40], [80, 40], [80, 80], [40, 80], [40, 40]]
    square = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "x"}},
    }
    (tmp_path / "a.geojson").write_text(json.dumps([square]))
    annotate(open_collection(tmp_path / "s.zarr"), [tmp_path / "a.geojson"], progress=Silent())
    return tmp_path


def predict(world, probability, train_slides=()):
    out = world / "pred.zarr"
    create_collection(out)
    about = {"kind": "prediction", "training": {"learned_from_slide": "a" in train_slides}}
    write_image(out / "a", probability[..., None], about, downsample=2.0)
    return open_collection(world / "s.zarr"), open_predictions(out)


def errors():
    found = np.zeros((80, 120), np.uint8)
    found[18:42, 18:42] = 250  # truth, and two pixels around it
    found[60:70, 60:70] = 240  # sure and wrong
    found[60:70, 80:90] = 100  # wrong, not sure
    return found


def test_hard_pixels_are_sure_errors_beyond_the_ring(world):
    slides, found = predict(world, errors())
    report = mine(found, slides, ring_um=4.0, cap=1.0, progress=Silent())
    assert report.slides[0].share == 100 / (80 * 120)
    label = slides["a"].label("hard_negatives")
    confidence = label.read(Region(level=0, y=0, x=0, height=80, width=120))
    expected = np.zeros((80, 120), np.uint8)
    expected[60:70, 60:70] = 240
    assert np.array_equal(confidence, expected)
    before = {p: p.read_bytes() for p in label.path.rglob("*") if p.is_file()}
    mine(found, slides, ring_um=4.0, cap=1.0, progress=Silent())
    assert before == {p: p.read_bytes() for p in label.path.rglob("*") if p.is_file()}


def test_without_a_ring_near_misses_count(world):
    slides, found = predict(world, errors())
    report = mine(found, slides, ring_um=0.0, cap=1.0, progress=Silent())
    assert report.slides[0].share == (100 + 24**2 - 20**2) / (80 * 120)


def test_slides_that_the_model_learned_from_are_refused(world):
    slides, found = predict(world, errors(), train_slides=["a", "b"])
    with pytest.raises(BatchError, match="trained on slide 'a'"):
        mine(found, slides, progress=Silent()).require_whole()
    assert "hard_negatives" not in slides["a"].label_names()


def test_the_cap_keeps_the_surest():
    confidence = np.array([[255, 200, 200, 130, 0]], np.uint8)
    assert _capped(confidence, 5).tolist() == confidence.tolist()
    assert _capped(confidence, 3).tolist() == [[255, 200, 200, 0, 0]]
    assert _capped(confidence, 1).tolist() == [[255, 0, 0, 0, 0]]
    assert not _capped(confidence, 0).any()


@pytest.mark.parametrize("top", [130, 255])
def test_the_cap_is_filled_from_all_over_the_level_that_does_not_fit(top):
    confidence = np.zeros((60, 80), np.uint8)
    confidence[10:50, 20:70] = top
    confidence[0, 0] = 255
    kept = _capped(confidence, 200)
    assert np.count_nonzero(kept) == 200
    assert kept[0, 0] == 255
    assert set(np.unique(kept)) == {0, top, 255}
    assert not kept[confidence == 0].any()
    blocks = (kept[10:50, 20:70] > 0).reshape(4, 10, 5, 10).sum(axis=(1, 3))
    assert blocks.min() >= 8  # ten of each hundred pixels
    assert blocks.max() <= 12
    assert np.array_equal(_capped(confidence, 200), kept)


def test_a_slide_with_nothing_on_it_has_no_ring(world):
    found = np.zeros((80, 120), np.uint8)
    found[:10, :10] = 240
    slides, found = predict(world, found)
    write_labels(slides["a"], Annotations((), ()), ClassTable.named(["x"]), "annotations")
    report = mine(found, slides, ring_um=4.0, cap=1.0, progress=Silent())
    assert report.slides[0].share == 100 / (80 * 120)


def test_missed_structures_are_hard_places_where_they_are_asked_for(world):
    """The square is missed: each of its pixels is as hard as background was sure there."""
    probability = np.full((80, 120), 30, np.uint8)
    probability[60:70, 90:110] = 200  # a false positive far away
    slides, predictions = predict(world, probability)
    for missed in (False, True):
        rule = HardRule(missed=missed)
        mine(predictions, slides, ring_um=5, cap=1.0, rule=rule, progress=Silent()).require_whole()
        layer = open_collection(world / "s.zarr")["a"].label("hard_negatives")
        hard = layer.read(layer.pyramid.extent.region())
        assert (hard[60:70, 90:110] == 200).all()
        assert (hard[21:39, 21:39] == (225 if missed else 0)).all()
    probability[30, 30] = 255  # one pixel of it is found
    shutil.rmtree(world / "pred.zarr")
    slides, predictions = predict(world, probability)
    mine(predictions, slides, ring_um=5, cap=1.0, rule=rule, progress=Silent()).require_whole()
    layer = open_collection(world / "s.zarr")["a"].label("hard_negatives")
    assert not layer.read(layer.pyramid.extent.region())[:50, :50].any()


def test_the_least_probability_of_a_false_positive_can_be_set(world):
    probability = np.zeros((80, 120), np.uint8)
    probability[60:70, 90:110], probability[60:70, 60:80] = 200, 60
    slides, predictions = predict(world, probability)
    for least, seen in ((0.5, False), (0.2, True)):
        rule = HardRule(least=least)
        mine(predictions, slides, ring_um=5, cap=1.0, rule=rule, progress=Silent()).require_whole()
        layer = open_collection(world / "s.zarr")["a"].label("hard_negatives")
        hard = layer.read(layer.pyramid.extent.region())
        assert bool(hard[60:70, 60:80].any()) is seen
        assert hard[65, 100] == 200
