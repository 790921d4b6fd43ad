import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.makers.memory import MemoryImage, MemoryStore
from tests.makers.painted import paint_prediction
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError
from wsi_seg.evaluation.search import choose, grid, search, slide_scores
from wsi_seg.geometry import Extent
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import argmax_strips
from wsi_seg.store import open_collection, open_predictions

CLASSES = ClassTable.named(["a", "b"])
EXCLUSIVE = ClassTable.named(["a", "b"], mode="exclusive")


@given(
    st.sampled_from([CLASSES, EXCLUSIVE]),
    hnp.arrays(np.uint8, (13, 11, 2), elements=st.sampled_from([0, 90, 130, 160, 200])),
    hnp.arrays(np.uint8, (13, 11), elements=st.sampled_from([0, 1, 2, 255])),
)
def test_scores_are_those_of_deciding_by_each_rule(table, probability, true):
    rules = grid([0.4, 0.6], [0.3, 0.4], [0, 3, 8], per=["image", "object"], base=Rule(unit="px"))
    rules += (Rule(unit="px"), Rule(min_area=3, unit="px", per="object"))
    classes = {"classes": table.to_json()}
    image = MemoryImage(probability, attributes=classes)
    label = MemoryImage(true, attributes=classes)
    prediction = MemoryStore(image, name="s")
    slide = MemoryStore(MemoryImage(np.zeros((13, 11, 3), np.uint8)), name="s", truth=label)
    scores = slide_scores(prediction, slide, rules, label="truth")
    valid = true != 255
    assert (scores is None) == (not valid.any())
    if scores is None:
        return
    for rule, score in zip(rules, scores, strict=True):
        strips = decide(
            argmax_strips(image, strip_px=5),
            rule,
            px_area=1,
            extent=Extent(height=13, width=11),
            exclusive=table.is_exclusive,
        )()
        found = np.concatenate([strip.ids for strip in strips])
        dice = []
        for n in (1, 2):
            a, b = (found == n) & valid, (true == n) & valid
            total = a.sum() + b.sum()
            dice.append(2 * (a & b).sum() / total if total else 1.0)
        assert score == pytest.approx(np.mean(dice), abs=1e-12)


def test_the_cross_fold_score_is_never_selected_on_itself():
    rules = grid([0.3, 0.5, 0.7], [], [0])
    # Each fold has a rule of its own that is perfect there and bad elsewhere.
    scores = np.array([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4], [0.3, 0.3, 0.5]])
    report = choose(rules, scores, np.array([0, 1, 2]), ["f0", "f1", "f2"])
    assert report.in_fold == pytest.approx(1.4 / 3)
    assert [c.rule.high_threshold for c in report.folds] == [0.5, 0.3, 0.3]
    assert [c.score for c in report.folds] == [0.0, 0.0, 0.4]
    assert report.cross_fold == pytest.approx(0.4 / 3)
    # A fold's own scores decide nothing about what it is scored by.
    changed = scores.copy()
    changed[:, 2] = [0.9, 0.1, 0.0]
    again = choose(rules, changed, np.array([0, 1, 2]), ["f0", "f1", "f2"])
    assert again.folds[2].rule == report.folds[2].rule


def test_slices_of_a_volume_are_in_one_part(tmp_path):
    """Otherwise, rules are scored on slices that are nearly those that selected them."""
    seen = paint_prediction(tmp_path)
    for collection in (seen.store, seen.prediction):
        for name in ("ct1_z0000", "ct1_z0001", "ct2_z0000", "ct2_z0001"):
            shutil.copytree(collection / "painted", collection / name)
        shutil.rmtree(collection / "painted")
    predictions, slides = open_predictions(seen.prediction), open_collection(seen.store)
    assert len(search([predictions], slides, grid([0.5], [], [0])).folds) == 2


def test_a_grid_leaves_out_what_cannot_be_and_one_fold_is_refused():
    rules = grid([0.75, 0.6], [0.3, 0.7], [1000, 2000])
    assert len(rules) == 6
    assert all(low <= high for high, low in (rule.thresholds() for rule in rules))
    with pytest.raises(ConfigError, match="at most a high one"):
        grid([0.2], [0.5], [0])
    with pytest.raises(ConfigError, match="two folds"):
        choose((Rule(),), np.ones((1, 2)), np.array([0, 0]), ["a"])
