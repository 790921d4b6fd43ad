import numpy as np
import pytest

from wsi_seg.evaluate.intervals import dice_of, interval, mean_of


def test_one_slide_has_no_interval():
    assert interval(np.array([[0.5]]), mean_of) is None


def test_equal_slides_have_an_interval_without_width():
    assert interval(np.full((5, 1), 0.75), mean_of) == (0.75, 0.75)


def test_it_nears_the_textbook_one_and_repeats():
    values = np.random.default_rng(1).normal(0.8, 0.1, (60, 1))
    found = interval(values, mean_of)
    assert found is not None
    low, high = found
    half = 1.96 * values.std() / 60**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert interval(values, mean_of) == (low, high)


def test_pooled_dice_weighs_slides_by_their_pixels():
    rows = np.array([[9.0, 10, 10], [0, 0, 0], [900, 1000, 1000]])
    assert dice_of(rows) == pytest.approx(909 / 1010)
    assert dice_of(np.zeros((1, 3, 3))).tolist() == [1.0]
