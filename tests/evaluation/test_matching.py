"""Objects found against true ones, compared with the same sums over whole arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label as label_components
from torchmetrics.detection import PanopticQuality

from wsi_seg.classes import ClassTable
from wsi_seg.evaluation.matching import Matcher, ObjectCounts
from wsi_seg.evaluation.pairing import PredictionTruthStrip
from wsi_seg.postprocess.strips import Strip
from wsi_seg.postprocess.watershed import split_objects


def matched(strips, classes):
    matcher = Matcher()
    for strip in strips:
        matcher.add(strip)
    return matcher.counts(classes)


CLASSES = ClassTable.named(["gland", "vessel"])
IDS = hnp.arrays(np.uint8, (13, 11), elements=st.sampled_from([0, 0, 1, 2]))


def strips(found, true, height):
    for y in range(0, len(found), height):
        rows = found[y : y + height]
        yield PredictionTruthStrip(y, rows, np.zeros_like(rows), true[y : y + height])


def by_hand(found, true, number):
    """IoUs above one half, and numbers of objects, from label images."""
    ours, theirs = (label_components(ids == number, connectivity=1) for ids in (found, true))
    ious = [
        (a & b).sum() / (a | b).sum()
        for a in (ours == n for n in range(1, ours.max() + 1))
        for b in (theirs == n for n in range(1, theirs.max() + 1))
    ]
    return sorted(iou for iou in ious if iou > 0.5), ours.max(), theirs.max()


@given(IDS, IDS, st.integers(1, 13))
def test_matches_are_those_of_whole_arrays_whatever_the_strips(found, true, height):
    counts = matched(strips(found, true, height), CLASSES)
    for entry in CLASSES:
        ious, ours, theirs = by_hand(found, true, entry.id)
        one = counts[entry.name]
        assert (one.found, one.true) == (ours, theirs)
        assert sorted(one.ious) == pytest.approx(ious)


def test_pixels_to_ignore_belong_to_no_object():
    true = np.array([[1, 1, 0, 255, 255]], dtype=np.uint8)
    found = np.array([[1, 1, 0, 1, 1]], dtype=np.uint8)
    counts = matched(strips(found, true, 1), CLASSES)["gland"]
    assert counts == ObjectCounts((1.0,), 1, 1)


def test_parting_touching_nuclei_finds_more_of_them():
    y, x = np.mgrid[:130, :170]
    rng = np.random.default_rng(1)
    true = np.zeros((130, 170), np.uint8)
    for cy in range(16, 130, 20):
        for cx in range(16, 170, 20):
            place = np.array([cy, cx]) + rng.uniform(-1, 1, 2)
            true[np.hypot(y - place[0], x - place[1]) < 8.5] = 1
    found = ndimage.binary_dilation(true, iterations=2).astype(np.uint8)
    split = np.concatenate(
        [strip.ids for strip in split_objects(lambda: iter([Strip(0, found, found)]), 1.0)()]
    )
    before = matched(strips(found, true, 64), CLASSES)["gland"]
    after = matched(strips(split, true, 64), CLASSES)["gland"]
    assert before.f1 < 0.5
    assert after.f1 > 0.95
    assert after.ap > before.ap + 0.2


def test_figures_of_a_worked_example():
    """Two of three found match (IoU .8, .6) two of four true ones."""
    counts = ObjectCounts((0.8, 0.6), found=3, true=4)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == 0.5
    assert counts.f1 == pytest.approx(4 / 7)
    assert counts.pq == pytest.approx(1.4 / (2 + 0.5 * 1 + 0.5 * 2))
    # Above .5 and .55 two match (2 / 5), above .6 to .75 one (1 / 6), above .8 none.
    assert counts.ap == pytest.approx((2 * 2 / 5 + 4 * 1 / 6) / 10)
    empty = ObjectCounts((), 0, 0)
    assert (empty.precision, empty.recall, empty.f1, empty.pq, empty.ap) == (1, 1, 1, 1, 1)
    assert counts + empty == counts


def test_torchmetrics_has_the_same_panoptic_quality():
    rng = np.random.default_rng(0)
    true = np.kron(rng.integers(0, 2, (6, 7)), np.ones((5, 5))).astype(np.uint8)
    found = true.copy()
    found[3:9] = np.roll(true, 2, axis=1)[3:9]
    metric = PanopticQuality(things={1}, stuffs={0}, return_per_class=True)

    def pairs_of(ids):
        instances = label_components(ids, connectivity=1)
        return torch.from_numpy(np.stack([ids, instances], axis=-1).astype(np.int64))[None]

    theirs = metric(pairs_of(found), pairs_of(true))
    ours = matched(strips(found, true, 7), CLASSES)["gland"]
    assert ours.pq == pytest.approx(float(theirs[0, 0]), abs=1e-6)
