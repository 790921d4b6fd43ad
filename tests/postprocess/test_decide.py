import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_holes

from tests.makers.memory import MemoryImage
from wsi_seg.errors import ConfigError, ResolutionError
from wsi_seg.geometry import Extent
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.rule import (
    Rule,
    fixed,
    least_above,
    read_rule,
    write_rule,
)
from wsi_seg.postprocess.strips import Strip, argmax_strips


def decided(probability, rule, *, height=7, mpp=None):
    """Class ids of a probability map (H, W) or (H, W, C) of 0..1, or uint8, after a rule."""
    array = np.asarray(probability)
    if array.dtype != np.uint8:
        array = np.rint(array * 255).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    source = argmax_strips(MemoryImage(array), strip_px=height)
    extent = Extent.of(array.shape)
    px_area = rule.px_area(mpp, name="s")
    return np.concatenate(
        [strip.ids for strip in decide(source, rule, px_area=px_area, extent=extent)()]
    )


def test_the_triplet_of_the_pneumothorax_winners():
    probability = np.full((100, 100), 0.2)
    probability.ravel()[:1999] = 0.8
    probability.ravel()[4000:5000] = 0.5
    rule = Rule(0.75, 0.3, 2000, "px")
    assert not decided(probability, rule).any()
    probability.ravel()[1999] = 0.8
    assert decided(probability, rule).sum() == 3000
    np.testing.assert_array_equal(
        decided(probability, Rule(0.75, 0.75, 2000, "px")),
        decided(probability, Rule(0.75, 0.75, 2000, "px")),
    )
    assert decided(probability, Rule(0.75, 0.75, 2000, "px")).sum() == 2000


def test_per_object_one_below_the_high_threshold_is_left_out():
    probability = np.full((30, 30), 0.1)
    probability[2:12, 2:12] = 0.5
    probability[4:9, 4:9] = 0.9
    probability[15:25, 15:25] = 0.5
    probability[16:18, 16:18] = 0.9
    found = decided(probability, Rule(0.75, 0.3, 25, "px", "object"))
    assert found[2:12, 2:12].all()
    assert found.sum() == 100
    assert decided(probability, Rule(0.75, 0.3, 25, "px")).sum() == 200


def test_above_is_strict():
    assert least_above(0.6) == 154  # 153 / 255 is 0.6 exactly
    assert least_above(0.5) == 128
    assert least_above(1) == 256
    assert decided(np.full((3, 3), 153, np.uint8), fixed(0.6)).sum() == 0
    assert decided(np.full((3, 3), 154, np.uint8), fixed(0.6)).sum() == 9


def test_areas_in_um2_decide_the_same_at_level_0_and_level_2():
    small = np.full((40, 40), 0.1)
    small[3:13, 3:13] = 0.9
    small[20:29, 20:30] = 0.9
    large = np.kron(small, np.ones((4, 4)))
    rule = Rule(0.5, 0.3, 100 * 16 * 0.25, per="object")
    coarse = decided(small, rule, mpp=2.0)
    fine = decided(large, rule, mpp=0.5)
    assert coarse.sum() == 100
    np.testing.assert_array_equal(np.kron(coarse, np.ones((4, 4), np.uint8)), fine)
    with pytest.raises(ResolutionError, match="'s' has no mpp"):
        decided(small, rule)


PROBABILITIES = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    elements=st.sampled_from([0, 60, 140, 200]),
)


@given(PROBABILITIES, st.integers(1, 21))
def test_hysteresis_is_that_of_scikit_image(values, height):
    found = decided(values, Rule(0.7, 0.3, 1, "px", "object"), height=height)
    expected = apply_hysteresis_threshold(values / 255, 0.3, 0.7)
    np.testing.assert_array_equal(found.astype(bool), expected)


@given(PROBABILITIES, st.integers(1, 21), st.integers(1, 30))
def test_holes_are_those_of_scikit_image(values, height, most):
    mask = values > 100
    rule = Rule(100 / 255, 100 / 255, unit="px", max_hole_area=most)
    padded = np.pad(mask, 1)  # what reaches the border is not a hole
    expected = remove_small_holes(padded, max_size=most, connectivity=1)[1:-1, 1:-1]
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    expected[(outside == outside[0, 0])[1:-1, 1:-1]] = False
    np.testing.assert_array_equal(decided(values, rule, height=height).astype(bool), expected)


@given(PROBABILITIES, st.integers(1, 21), st.integers(1, 4))
def test_small_objects_go_and_the_largest_stay(values, height, largest):
    mask = values > 100
    components, count = ndimage.label(mask)
    areas = np.bincount(components.ravel())[1:]
    rule = Rule(100 / 255, 100 / 255, unit="px", min_object_area=3, keep_largest=largest)
    order = np.argsort(-areas, kind="stable")[:largest]
    wanted = [n + 1 for n in order if areas[n] >= 3]
    found = decided(values, rule, height=height)
    np.testing.assert_array_equal(found.astype(bool), np.isin(components, wanted))
    assert count == len(areas)


def test_several_classes_are_decided_separately_and_a_hole_takes_the_class_around_it():
    probability = np.zeros((20, 20, 2))
    probability[1:11, 1:11, 0] = 0.9
    probability[4:6, 4:6, 0] = 0.0
    probability[12:15, 12:15, 1] = 0.7
    probability[2:4, 15:17, 1] = 0.95
    found = decided(probability, Rule(0.6, 0.6, unit="px", min_object_area=5, max_hole_area=4))
    assert (found[1:11, 1:11] == 1).all()
    assert (found[12:15, 12:15] == 2).all()
    assert np.bincount(found.ravel()).tolist() == [400 - 109, 100, 9]


def test_rules_are_kept_as_json_and_nonsense_is_refused(tmp_path):
    rule = Rule(0.7, 0.3, 600, per="object")
    write_rule(tmp_path / "rule.json", rule, {"score": 0.5})
    assert read_rule(tmp_path / "rule.json") == rule
    with pytest.raises(ConfigError, match="wsi-seg search"):
        read_rule(tmp_path / "none.json")
    (tmp_path / "rule.json").write_text('{"rule": {"high_threshold": 0.2, "low_threshold": 0.4}}')
    with pytest.raises(ConfigError, match="low_threshold"):
        read_rule(tmp_path / "rule.json")
    with pytest.raises(ConfigError, match="areas"):
        Rule(min_area=-1)


@pytest.mark.parametrize(
    ("earlier", "now"),
    [("top", "high_threshold"), ("bottom", "low_threshold"), ("scope", "per"),
     ("largest", "keep_largest"), ("split", "watershed_depth"), ("apart", "min_distance"),
     ("max_iou", "nms_iou")],
)  # fmt: skip
def test_a_rule_of_an_earlier_version_is_refused_by_the_new_names_of_its_keys(
    tmp_path, earlier, now
):
    path = tmp_path / "rule.json"
    path.write_text(json.dumps({"rule": {"min_area": 3, earlier: 1, "unit": "px"}}))
    with pytest.raises(ConfigError, match=f"rule.json.*'{earlier}' is now '{now}'"):
        read_rule(path)


def test_a_source_is_read_again_at_each_call():
    strips = [Strip(0, np.ones((2, 2), np.uint8), np.full((2, 2), 200, np.uint8))]
    source = decide(lambda: iter(strips), fixed(0.5), px_area=1, extent=Extent(height=2, width=2))
    assert [s.ids.sum() for s in source()] == [s.ids.sum() for s in source()] == [4]
