import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from wsi_seg.errors import ResolutionError
from wsi_seg.geometry import Extent
from wsi_seg.postprocess import watershed
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.rule import Rule, read_rule, write_rule
from wsi_seg.postprocess.strips import Strip
from wsi_seg.postprocess.watershed import split_objects, watershed_lines


def strips_of(ids, height):
    def strips():
        for y in range(0, len(ids), height):
            rows = ids[y : y + height]
            yield Strip(y, rows, np.where(rows, 255, 0).astype(np.uint8))

    return strips


def split(ids, depth_px, *, height=7):
    source = split_objects(strips_of(ids, height), depth_px)
    return np.concatenate([strip.ids for strip in source()])


def discs(shape, centres, radius):
    """Label map of 1 with discs."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    ids = np.zeros(shape, np.uint8)
    for cy, cx in centres:
        ids[np.hypot(y - cy, x - cx) < radius] = 1
    return ids


def crowd(shape, count, seed):
    """Label map of many discs of two classes that touch and overlap, in places of chance."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(shape, np.uint8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(count):
        cy, cx = rng.uniform(0, shape)
        ids[np.hypot(y - cy, x - cx) < rng.uniform(2, 9)] = rng.integers(1, 3)
    return ids


def count_of(ids):
    return sum(ndimage.label(ids == value)[1] for value in np.unique(ids[ids > 0]))


def test_touching_discs_are_split_by_a_thin_line():
    ids = discs((41, 93), [(20, 20), (20, 44), (20, 70)], 14)
    assert count_of(ids) == 1
    found = split(ids, 1.5)
    assert count_of(found) == 3
    lost = (ids != found).sum()
    assert 0 < lost < 0.04 * (ids > 0).sum()
    columns = np.nonzero(ids != found)[1]
    assert set(columns) <= {31, 32, 33, 56, 57, 58}


def test_a_disc_and_a_shallow_neck_are_not_split():
    ids = discs((41, 61), [(20, 20), (20, 26)], 14)
    np.testing.assert_array_equal(split(ids, 1.5), ids)
    ids = discs((41, 61), [(20, 20), (20, 40)], 14)
    assert count_of(split(ids, 1.5)) == 2
    np.testing.assert_array_equal(split(ids, 20), ids)
    specks = np.eye(9, dtype=np.uint8)
    np.testing.assert_array_equal(split(specks, 0.5), specks)


@given(st.integers(0, 10_000), st.integers(1, 70))
def test_strips_of_any_height_split_the_same(seed, height):
    ids = crowd((61, 47), 25, seed)
    whole = split(ids, 0.7, height=61)
    np.testing.assert_array_equal(split(ids, 0.7, height=height), whole)


@given(st.integers(0, 10_000))
def test_every_object_is_split_as_if_it_were_alone(seed):
    ids = crowd((61, 47), 25, seed)
    found = split(ids, 0.7)
    for value in (1, 2):
        numbered, count = ndimage.label(ids == value)
        for number in range(1, count + 1):
            alone = np.pad(numbered == number, 1)
            lines = watershed_lines(alone, 0.7)[1:-1, 1:-1]
            np.testing.assert_array_equal(
                (found == 0) & (numbered == number), lines & (numbered == number)
            )


def test_strips_of_256_and_of_4096_rows_split_the_same():
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.normal(size=(4300, 160)), 5)
    ids = ((noise > 0.02) * (1 + (np.arange(160) > 90))).astype(np.uint8)
    low, high = split(ids, 1.0, height=256), split(ids, 1.0, height=4096)
    np.testing.assert_array_equal(low, high)
    assert count_of(low) > 1.2 * count_of(ids)


def test_an_object_with_too_long_a_box_is_not_split(monkeypatch):
    ids = discs((41, 61), [(20, 20), (20, 40)], 14)
    monkeypatch.setattr(watershed, "MAX_PX", 40)
    np.testing.assert_array_equal(split(ids, 1.5), ids)
    monkeypatch.setattr(watershed, "MAX_PX", 47)
    assert count_of(split(ids, 1.5)) == 2


def test_a_decision_reads_the_slide_a_few_times_whatever_its_steps():
    ids, reads = discs((41, 61), [(20, 20), (20, 40)], 14), 0

    def counted():
        nonlocal reads
        reads += 1
        yield from strips_of(ids, 7)()

    rule = Rule(
        0.5, 0.3, 9, "px", "object", min_object_area=3, max_hole_area=5, watershed_depth=1.0
    )
    source = decide(counted, rule, px_area=1, extent=Extent.of(ids.shape))
    first = np.concatenate([strip.ids for strip in source()])
    assert reads == 5  # holes, boxes, lines, objects, and what is written
    np.testing.assert_array_equal(np.concatenate([strip.ids for strip in source()]), first)
    assert reads == 6


def test_a_rule_fills_holes_first_and_measures_after_the_split():
    ids = discs((41, 61), [(20, 20), (20, 40)], 14)
    area = int((ids > 0).sum())
    ids[19:22, 19:22] = 0
    ids[20, 30] = 0
    source, extent = strips_of(ids, 7), Extent.of(ids.shape)

    def decided(rule):
        strips = decide(source, rule, px_area=rule.px_area(0.5, name="s"), extent=extent)()
        return np.concatenate([strip.ids for strip in strips])

    found = decided(Rule(watershed_depth=0.75, max_hole_area=2.5))
    assert count_of(found) == 2
    assert found[20, 20] == 1
    assert count_of(decided(Rule(watershed_depth=0.75, max_hole_area=2.5, keep_largest=1))) == 1
    assert not decided(
        Rule(watershed_depth=0.75, max_hole_area=2.5, min_object_area=0.6 * area / 4)
    ).any()
    # The same length in pixels.
    np.testing.assert_array_equal(
        decided(Rule(watershed_depth=1.5, max_hole_area=10, unit="px")), found
    )


def test_a_rule_that_splits_is_kept_and_needs_an_mpp(tmp_path):
    rule = Rule(watershed_depth=1.25)
    write_rule(tmp_path / "rule.json", rule, {})
    assert read_rule(tmp_path / "rule.json") == rule
    assert "split by a watershed 1.25 um deep" in rule.describe()
    with pytest.raises(ResolutionError, match="'s' has no mpp"):
        rule.px_area(None, name="s")
    assert Rule(watershed_depth=2, unit="px").px_area(None, name="s") == 1
