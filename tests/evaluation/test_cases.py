"""Slices of one scan are one case: means, intervals and rows of a table are per scan."""

from typing import Any

import numpy as np
import pytest

from wsi_seg.evaluation.boundary import Distances
from wsi_seg.evaluation.matching import ObjectCounts
from wsi_seg.evaluation.scores import Counts, Scores, SlideScore


def scan(name, slices, **more):
    return [
        SlideScore(f"{name}_z{z:04d}", "nodule", counts, **more) for z, counts in enumerate(slices)
    ]


def test_scores_of_scans_are_of_all_their_slices_together():
    """One scan of 90 empty slices and 2 with a nodule, one of which is missed; one is perfect."""
    silent, miss, hit = Counts(0, 0, 0), Counts(0, 0, 100), Counts(100, 0, 0)
    slides = scan("a", [silent] * 90 + [miss, hit]) + scan("b", [hit])
    scores = Scores(tuple(slides))
    assert scores.slide_dice("nodule")[0] == pytest.approx((2 / 3 + 1) / 2)
    assert scores.mean_slide_dice == pytest.approx((2 / 3 + 1) / 2)
    assert scores.pooled("nodule") == Counts(200, 0, 100)
    written: Any = scores.to_json()
    rows = written["volumes"]
    assert [(row["volume"], row["dice"]) for row in rows] == [("a", pytest.approx(2 / 3)), ("b", 1)]
    assert len(written["slides"]) == 93
    text = "\n".join(scores.lines())
    assert "per volume" in text
    assert "95 % intervals over volumes" in text


def test_intervals_are_wide_where_scans_are_few_however_many_their_slices():
    rng = np.random.default_rng(0)

    def made(scans, slices):
        found = []
        for number in range(scans):
            good = rng.uniform(0.2, 1)
            found += scan(f"s{number}", [Counts(int(100 * good), 10, 10)] * slices)
        written: Any = Scores(tuple(found)).to_json()
        return written["classes"]["nodule"]

    few, many = made(5, 40), made(200, 1)
    width = [row["slide_dice_mean_high"] - row["slide_dice_mean_low"] for row in (few, many)]
    assert width[0] > 3 * width[1]


def test_objects_outlines_and_tiles_of_slices_add_up():
    near = Distances(np.array([[0, 4], [9, 1]]), np.array([[0, 5]]))
    far = Distances(np.array([[9, 2], [16, 3]]), np.empty((0, 2), np.int64))
    hit = Counts(1, 0, 0)
    one = SlideScore("a_z0000", "nodule", hit, ObjectCounts((0.8,), 2, 1), near, (0.5,))
    two = SlideScore("a_z0001", "nodule", hit, ObjectCounts((0.6,), 1, 2), far, (0.7,))
    (case,) = Scores((one, two)).cases
    assert case.slide == "a"
    assert case.objects == ObjectCounts((0.8, 0.6), 3, 3)
    assert case.tile_dices == (0.5, 0.7)
    assert case.distances is not None
    assert case.distances.there.tolist() == [[0, 4], [9, 3], [16, 3]]
    assert case.distances.back.tolist() == [[0, 5]]


def test_slides_that_are_no_slices_are_cases_themselves():
    scores = Scores((SlideScore("a", "x", Counts(1, 1, 1)), SlideScore("b", "x", Counts(1, 0, 0))))
    assert scores.cases == scores.slides
    assert "volumes" not in scores.to_json()
    assert "per slide" in scores.lines()[0]
