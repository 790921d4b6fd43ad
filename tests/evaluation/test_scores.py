import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.classes import ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.evaluation.calibration import slide_reliability
from wsi_seg.evaluation.compare import evaluate_slide
from wsi_seg.evaluation.scores import Counts, Scores, SlideScore
from wsi_seg.evaluation.search import slide_scores
from wsi_seg.learn.monitor import figures
from wsi_seg.postprocess.rule import Rule
from wsi_seg.progress import Silent

CLASSES = ClassTable.named(["gland", "vessel"])


def label(*levels, classes=CLASSES):
    return MemoryImage(*levels, attributes={"classes": classes.to_json()})


def pair(found, true, true_classes=CLASSES):
    picture = np.zeros((*found.shape, 3), dtype=np.uint8)
    truth_picture = np.zeros((*true.shape, 3), dtype=np.uint8)
    return (
        MemoryStore(MemoryImage(picture), name="s", prediction=label(found)),
        MemoryStore(MemoryImage(truth_picture), name="s", truth=label(true, classes=true_classes)),
    )


@given(
    hnp.arrays(np.uint8, (23, 17), elements=st.sampled_from([0, 1, 2])),
    hnp.arrays(np.uint8, (23, 17), elements=st.sampled_from([0, 1, 2, 255])),
)
def test_counts_are_those_of_whole_arrays_and_ignored_pixels_do_not_count(found, true):
    assume((true != 255).any())
    scores = evaluate_slide(*pair(found, true), label="truth", progress=Silent())
    valid = true != 255
    for entry, score in zip(CLASSES, scores, strict=True):
        a, b = (found == entry.id) & valid, (true == entry.id) & valid
        assert score.counts == Counts(int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum()))


@pytest.mark.parametrize("mode", [None, "exclusive", "overlapping"])
def test_a_slide_of_ignored_pixels_has_no_scores(mode):
    """Its Dice would be 1, as that of empty masks, and raise every mean over slides."""
    table = ClassTable.named(["gland", "vessel"], mode=mode)
    planes = () if table.planes is None else (table.planes,)
    classes = {"classes": table.to_json()}
    values = MemoryImage(np.full((5, 7, 2), 90, np.uint8), attributes=classes)
    found = MemoryStore(
        values, name="s", prediction=label(np.zeros((5, 7, *planes), np.uint8), classes=table)
    )
    true = label(np.full((5, 7, *planes), 255, np.uint8), classes=table)
    slide = MemoryStore(MemoryImage(np.zeros((5, 7, 3), np.uint8)), name="s", truth=true)
    assert evaluate_slide(found, slide, label="truth", progress=Silent()) == []
    assert slide_reliability(found, slide, label="truth") == {}
    assert slide_scores(found, slide, [Rule(0.5, 0.5)], label="truth") is None
    assert figures(Scores(()), {"s": {}}) == {}


def test_per_slide_and_pooled_dice_differ_and_empty_against_empty_is_one():
    scores = Scores(
        (
            SlideScore("a", "gland", Counts(tp=90, fp=10, fn=10)),
            SlideScore("b", "gland", Counts(tp=0, fp=0, fn=0)),
            SlideScore("c", "gland", Counts(tp=0, fp=1, fn=0)),
        )
    )
    assert [s.counts.dice for s in scores.slides] == [0.9, 1.0, 0.0]
    assert scores.pooled("gland").dice == 2 * 90 / (2 * 90 + 11 + 10)
    assert scores.slide_dice("gland")[0] == pytest.approx(1.9 / 3)
    assert scores.pooled("gland").iou == 90 / 111
    assert "Dice 0.6333" in scores.lines()[0]
    assert "Dice 0.6333" in scores._repr_html_()


def test_truth_classes_are_matched_by_name_not_by_id():
    true = np.array([[2, 2, 1, 0]], dtype=np.uint8)
    found = np.array([[1, 1, 2, 0]], dtype=np.uint8)
    stores = pair(found, true, ClassTable.named(["vessel", "gland", "nerve"]))
    scores = evaluate_slide(*stores, label="truth", progress=Silent())
    assert [s.counts for s in scores] == [Counts(2, 0, 0), Counts(1, 0, 0)]


def test_missing_class_and_another_slide_are_refused_naming_both():
    found = np.zeros((10, 20), dtype=np.uint8)
    other_classes = pair(found, found, ClassTable.named(["nerve"]))
    with pytest.raises(StoreError, match=r"gland, vessel.*nerve"):
        evaluate_slide(*other_classes, label="truth", progress=Silent())
    other_slide = pair(found, np.zeros((20, 10), dtype=np.uint8))
    with pytest.raises(StoreError, match="not the same slide"):
        evaluate_slide(*other_slide, label="truth", progress=Silent())
