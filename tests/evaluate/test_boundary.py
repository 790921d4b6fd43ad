"""Distances between outlines, compared with those of whole arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from scipy.ndimage import binary_erosion, distance_transform_edt

from wsi_seg.classes import ClassTable
from wsi_seg.evaluate.boundary import Outlines
from wsi_seg.evaluate.pairing import PredictionTruthStrip

CLASSES = ClassTable.named(["gland"])
MASKS = hnp.arrays(np.uint8, (17, 12), elements=st.sampled_from([0, 0, 1]))


def measured(found, true, height, reach=64):
    outlines = Outlines(CLASSES, reach_px=reach)
    for y in range(0, len(found), height):
        rows = found[y : y + height]
        outlines.add(PredictionTruthStrip(y, rows, np.zeros_like(rows), true[y : y + height]))
    return outlines.distances()["gland"]


def by_hand(found, true):
    """Distances from the pixels of each outline to the other one."""
    edges = [mask & ~binary_erosion(mask) for mask in (found > 0, true > 0)]
    return [
        distance_transform_edt(~other)[edge] if other.any() else np.full(edge.sum(), np.inf)
        for edge, other in (edges, edges[::-1])
    ]


@given(MASKS, MASKS, st.integers(1, 17), st.floats(0, 6))
def test_figures_are_those_of_whole_arrays_whatever_the_strips(found, true, height, tolerance):
    ours = measured(found, true, height)
    there, back = by_hand(found, true)
    both = np.concatenate([there, back])
    # A hair more than the tolerance is within it: um become pixels by a division.
    near = (both**2 <= tolerance**2 + 1e-9).mean() if len(both) else 1.0
    assert ours.surface_dice(tolerance) == pytest.approx(near)
    if len(there) and len(back):
        expected = max(np.quantile(there, 0.95), np.quantile(back, 0.95))
        assert ours.hausdorff() == pytest.approx(expected)
    else:
        assert ours.hausdorff() == (None if len(both) else 0.0)


def test_what_is_beyond_the_reach_is_infinitely_far():
    found, true = np.zeros((40, 9), np.uint8), np.zeros((40, 9), np.uint8)
    found[2:5, 2:5], true[30:33, 2:5] = 1, 1
    assert measured(found, true, 5, reach=30).hausdorff() == pytest.approx(28)
    far = measured(found, true, 5, reach=20)
    assert far.hausdorff() is None
    assert far.surface_dice(20) == 0


def test_pixels_to_ignore_have_no_outline():
    found, true = np.ones((6, 6), np.uint8), np.ones((6, 6), np.uint8)
    true[:, 3:] = 255
    distances = measured(found, true, 2)
    assert distances.there[:, 1].sum() == 10  # three sides of the left half
    assert distances.surface_dice(1) == 1


@pytest.mark.filterwarnings("ignore::FutureWarning:monai.*")
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_monai_has_the_same_figures(tolerance):
    y, x = np.mgrid[:60, :80]
    found = (np.hypot(y - 30, x - 40) < 17).astype(np.uint8)
    true = (np.hypot(y - 27, (x - 45) / 1.3) < 18).astype(np.uint8)
    ours = measured(found, true, 16)
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (found, true))
    theirs = compute_hausdorff_distance(one, other, include_background=True, percentile=95)
    assert ours.hausdorff() == pytest.approx(float(theirs), abs=1e-6)
    surface = compute_surface_dice(
        one, other, class_thresholds=[tolerance], include_background=True
    )
    assert ours.surface_dice(tolerance) == pytest.approx(float(surface), abs=1e-6)


def test_what_is_kept_of_a_slide_is_small():
    """A run of 10,000 images keeps the distances of each."""
    found, true = np.zeros((96, 64), np.uint8), np.zeros((96, 64), np.uint8)
    found[20:50, 10:40], true[25:55, 12:40] = 1, 1
    kept = measured(found, true, 32)
    assert kept.there.nbytes + kept.back.nbytes < 4_000
