import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.makers.memory import MemoryImage
from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Extent, Region
from wsi_seg.inference.strips import label_ids
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.label_map import background, label_map, predicted_label
from wsi_seg.postprocess.rule import Rule, fixed
from wsi_seg.postprocess.strips import argmax_strips, certain_label_strips
from wsi_seg.postprocess.write import decided_label
from wsi_seg.store import (
    Layout,
    Multiscale,
    create_collection,
    create_multiscale,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

CLASSES = ClassTable.named(["gland", "vessel", "nerve"])

PROBABILITIES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=9).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 90, 127, 128, 200]))
)


@given(PROBABILITIES)
def test_the_most_probable_class_is_taken_where_it_is_above_one_half(probability):
    expected = np.where(probability.max(axis=2) > 127, probability.argmax(axis=2) + 1, 0)
    assert np.array_equal(label_map(probability), expected)


def shares(seed, classes, shape=(9, 7)):
    """Probabilities of exclusive classes, each rounded to 1 / 255."""
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.full(classes + 1, 0.5), shape)
    return np.floor(255 * found[..., 1:] + 0.5).astype(np.uint8)


@given(st.integers(0, 999), st.integers(1, 6))
def test_exclusive_classes_are_an_argmax_with_what_they_leave(seed, classes):
    probability = shares(seed, classes)
    left = np.maximum(0, 255 - probability.astype(int).sum(axis=2))
    every = np.concatenate([left[..., None], probability], axis=2)
    assert np.array_equal(background(probability), left)
    expected = every.argmax(axis=2)  # of equals the lowest id
    assert np.array_equal(label_map(probability, "exclusive"), expected)
    rows = torch.from_numpy(probability).permute(2, 0, 1)
    assert np.array_equal(label_ids(rows, exclusive=True), expected)


@given(PROBABILITIES)
def test_the_device_decides_as_the_host_does_whatever_the_numbers(probability):
    rows = torch.from_numpy(np.ascontiguousarray(probability)).permute(2, 0, 1)
    for exclusive in (False, True):
        expected = label_map(probability, "exclusive" if exclusive else None)
        assert np.array_equal(label_ids(rows, exclusive=exclusive), expected)


@given(st.integers(0, 99), st.sampled_from([None, 0.0, 0.4, 0.6]))
def test_a_threshold_of_doubt_makes_background_of_what_is_not_above_it(seed, threshold):
    probability = shares(seed, 3)
    classes = ClassTable.named(["a", "b", "c"], mode="exclusive")
    image = MemoryImage(probability, attributes={"classes": classes.to_json()})
    rule = Rule(high_threshold=threshold, low_threshold=threshold)
    strips = decide(
        argmax_strips(image, strip_px=4),
        rule,
        px_area=1,
        extent=Extent(height=9, width=7),
        exclusive=True,
    )()
    found = np.concatenate([strip.ids for strip in strips])
    expected = label_map(probability, "exclusive")
    expected[probability.max(axis=2) <= 255 * (threshold or 0)] = 0
    assert np.array_equal(found, expected)
    assert rule.needs_probabilities(exclusive=True) == bool(threshold)


@pytest.fixture
def prediction(tmp_path):
    """Prediction of three classes whose probabilities alone are saved, of odd sizes."""
    create_collection(tmp_path / "p.zarr")
    pixels = np.random.default_rng(0).integers(0, 256, (1301, 1051, 3), dtype=np.uint8)
    about = {"saved": "probabilities", "classes": CLASSES.to_json()}
    write_image(tmp_path / "p.zarr" / "slide", pixels, about, downsample=2.0)
    return open_predictions(tmp_path / "p.zarr")["slide"]


def test_a_label_map_that_was_not_saved_is_computed_as_it_is_read(prediction, monkeypatch):
    label = pickle.loads(pickle.dumps(predicted_label(prediction)))
    assert label.channels is None
    assert label.pyramid == prediction.pyramid
    assert label.classes == CLASSES
    read, most = Multiscale.read, []

    def watched(image, region, *, cached=True, out=None):
        most.append(region.height)
        return read(image, region, cached=cached)

    monkeypatch.setattr(Multiscale, "read", watched)
    for level, extent in enumerate(label.pyramid.extents):
        for y, x in ((0, 0), (77, 501)):
            place = Region(level=level, y=y, x=x, height=1301, width=1051).clip(extent)
            found = label.read(place, cached=False)
            assert np.array_equal(found, label_map(read(prediction.image, place)))
    assert max(most) <= 512


def test_other_labels_and_other_predictions_are_read_from_disk(prediction):
    kept = prediction.path / "labels" / "prediction"
    create_multiscale(kept, Layout.like(prediction.image), {})
    assert type(predicted_label(prediction)) is not Multiscale  # stale ones do not count
    with pytest.raises(ValueError, match=r"got label 'decision'; it has: prediction"):
        predicted_label(prediction, "decision")


def test_what_is_too_small_for_the_model_is_left_out_unless_a_rule_decides(tmp_path):
    create_collection(tmp_path / "p.zarr")
    nucleus = ClassTable.named(["nucleus"]).to_json()
    about = {"saved": "probabilities", "classes": nucleus, "min_object_um2": 10.0}
    found = np.zeros((40, 40, 1), dtype=np.uint8)
    found[2:8, 2:8] = 200  # 9 um2
    found[20:27, 20:27] = 200  # 12 um2
    write_image(tmp_path / "p.zarr" / "slide", found, about)
    (store,) = open_predictions(tmp_path / "p.zarr")
    whole = Region(level=0, y=0, x=0, height=40, width=40)
    assert decided_label(store, fixed(0.5)).read(whole, cached=False).sum() == 36 + 49
    kept = decided_label(store, None).read(whole, cached=False)
    assert kept.sum() == kept[20:27, 20:27].sum() == 49


RULES_AT_ONE_HALF = st.builds(
    Rule,
    min_area=st.integers(0, 9),
    unit=st.just("px"),
    per=st.sampled_from(["image", "object"]),
    min_object_area=st.integers(0, 9),
    keep_largest=st.integers(0, 2),
    max_hole_area=st.integers(0, 5),
    watershed_depth=st.sampled_from([0.0, 0.5]),
)


@given(PROBABILITIES, RULES_AT_ONE_HALF)
def test_a_rule_at_one_half_decides_the_same_of_class_ids_alone(probability, rule):
    assert not rule.needs_probabilities()
    extent = Extent.of(probability.shape)
    sources = (
        argmax_strips(MemoryImage(probability), strip_px=4),
        certain_label_strips(MemoryImage(label_map(probability)), strip_px=4),
    )
    all_px, ids_only = (
        np.concatenate([s.ids for s in decide(source, rule, px_area=1.0, extent=extent)()])
        for source in sources
    )
    assert np.array_equal(ids_only, all_px)


@pytest.mark.parametrize(
    "rule",
    [
        fixed(0.6),
        Rule(0.4, 0.4, 3),
        Rule(0.5, 0.4, 1, "px", "object"),
        Rule(min_distance=2.0),
        Rule(nms_iou=0.5),
    ],
)
def test_other_rules_need_probabilities(rule):
    assert rule.needs_probabilities()
