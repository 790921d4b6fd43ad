import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsi_seg.errors import ConfigError
from wsi_seg.geometry import Extent
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.nms import nms_by_distance, nms_by_iou, score_order
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import Strip

COORDINATES = st.integers(0, 12)


def greedy(count, order, conflicts):
    """Keep each in turn that is in conflict with none kept so far."""
    kept: list[int] = []
    for index in order:
        if not any(conflicts(index, other) for other in kept):
            kept.append(index)
    return np.isin(np.arange(count), kept)


def test_equal_scores_are_ordered_by_the_next_and_then_by_place():
    first, second = np.array([1, 2, 2, 2, 1]), np.array([9, 1, 3, 3, 9])
    assert score_order(first, second).tolist() == [2, 3, 1, 0, 4]
    assert score_order(first).tolist() == [1, 2, 3, 0, 4]


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 15), st.just(3)), elements=COORDINATES),
       st.integers(1, 9), st.randoms(use_true_random=False))  # fmt: skip
def test_the_more_probable_of_two_near_ones_stays(centre, distance, random):
    order = np.array(random.sample(range(len(centre)), len(centre)), dtype=np.int64)

    def near(a, b):
        return ((centre[a] - centre[b]) ** 2).sum() < distance**2

    found = nms_by_distance(centre, order, min_distance=distance)
    np.testing.assert_array_equal(found, greedy(len(centre), order, near))


@given(hnp.arrays(np.int64, st.tuples(st.integers(0, 12), st.just(4)), elements=COORDINATES),
       st.sampled_from([0, 0.2, 0.5]), st.randoms(use_true_random=False))  # fmt: skip
def test_the_more_probable_of_two_boxes_that_overlap_stays(rows, max_iou, random):
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + 1 + rows[:, 2:]], axis=1).astype(float)
    order = np.array(random.sample(range(len(boxes)), len(boxes)), dtype=np.int64)
    painted = np.zeros((len(boxes), 26, 26), bool)
    for mask, (top, left, bottom, right) in zip(painted, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = True

    def overlap(a, b):
        a, b = painted[a], painted[b]
        return (a & b).sum() > max_iou * (a | b).sum()

    found = nms_by_iou(boxes, order, max_iou=max_iou)
    np.testing.assert_array_equal(found, greedy(len(boxes), order, overlap))


def decided(ids, probability, rule, *, height=7, mpp=0.5):
    def source():
        for y in range(0, len(ids), height):
            yield Strip(y, ids[y : y + height], probability[y : y + height])

    px_area = rule.px_area(mpp, name="s")
    strips = decide(source, rule, px_area=px_area, extent=Extent.of(ids.shape))
    return np.concatenate([strip.ids for strip in strips()])


def scene():
    """Three objects in a row, of two classes; the middle one is the most probable."""
    ids, probability = np.zeros((20, 40), np.uint8), np.full((20, 40), 200, np.uint8)
    ids[4:9, 2:7] = 1
    ids[4:9, 10:15] = 2
    ids[4:9, 18:23] = 1
    probability[6, 12] = 240
    return ids, probability


@pytest.mark.parametrize("height", [1, 6, 20])
def test_on_a_slide_the_more_probable_stays_whatever_its_class(height):
    ids, probability = scene()
    found = decided(ids, probability, Rule(min_distance=4.01), height=height)
    np.testing.assert_array_equal(found, ids * (ids == 2))
    np.testing.assert_array_equal(
        decided(ids, probability, Rule(min_distance=4), height=height), ids
    )
    # Of equals the larger stays; an object that was left out leaves out no other.
    probability[:] = 200
    ids[9, 2] = 1
    found = decided(ids, probability, Rule(min_distance=9, unit="px"), height=height)
    assert [found[4, x] for x in (2, 10, 18)] == [1, 0, 1]


def test_on_a_slide_boxes_that_overlap_too_much():
    ids, probability = scene()
    ids[:] = 0
    ids[2:18, 2:18] = 1
    ids[6:16, 6:16] = 0
    ids[8:14, 8:14] = 2
    share = 36 / 256
    for max_iou, kept in ((share - 0.01, [1]), (share + 0.01, [1, 2]), (1.0, [1, 2])):
        found = decided(ids, probability, Rule(nms_iou=max_iou))
        assert [n for n in (1, 2) if (found == n).any()] == kept
    probability[9, 9] = 250
    assert set(np.unique(decided(ids, probability, Rule(nms_iou=0.1)))) == {0, 2}


def test_nonsense_is_refused_and_a_rule_says_what_it_does():
    with pytest.raises(ConfigError, match=r"nms_iou=1\.5"):
        Rule(nms_iou=1.5)
    assert (
        Rule(min_distance=3, nms_iou=0.2)
        .describe()
        .endswith(", centroids at least 3 um apart, boxes with an IoU up to 0.2")
    )
