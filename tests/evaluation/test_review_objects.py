import numpy as np
import pytest

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.evaluation import review_objects
from wsi_seg.evaluation.review_objects import list_review_objects
from wsi_seg.store import (
    create_collection,
    create_group,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

CLASSES = ClassTable.named(["gland", "vessel"])
HEIGHT, WIDTH, MPP = 1500, 1100, 0.5


def write(path, pixels, *, classes=CLASSES):
    write_image(path, pixels, {"classes": classes.to_json()}, mpp=MPP)


@pytest.fixture
def review(tmp_path):
    """Objects of a slide from its label map, probabilities (if any were saved) and truth."""

    def call(found, probability, true, *, classes=CLASSES):
        for name in ("store.zarr", "pred.zarr"):
            create_collection(tmp_path / name)
        slide, prediction = tmp_path / "store.zarr/slide", tmp_path / "pred.zarr/slide"
        write(slide, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
        if true is not None:
            write(slide / "labels/truth", true, classes=classes)
        if found is not None:
            if probability is None:
                create_group(prediction, {"saved": "labels", "classes": CLASSES.to_json()})
            else:
                write(prediction, probability)
            write(prediction / "labels/prediction", found)
        (store,) = open_collection(tmp_path / "store.zarr")
        predicted = tuple(open_predictions(tmp_path / "pred.zarr"))
        label = None if true is None else store.label("truth")
        return list_review_objects(store, predicted[0] if predicted else None, label)

    return call


def blank():
    return np.zeros((HEIGHT, WIDTH), dtype=np.uint8)


def both(channel, values):
    probability = np.zeros((HEIGHT, WIDTH, 2), dtype=np.uint8)
    probability[:, :, channel] = values
    return probability


def test_a_ring_over_many_strips_is_one_object_and_keeps_its_hole(review):
    found = blank()
    found[100:1400, 100:1000] = 1
    found[200:1300, 200:900] = 0
    (ring,) = review(found, both(0, found * 255), None)
    assert ring.area == (1300 * 900 - 1100 * 700) * MPP**2
    assert len(ring.polygon.interiors) == 1
    assert ring.probability == pytest.approx(1, abs=0.02)  # measured at a coarser level
    assert ring.overlap is None
    assert ring.error_mass is None


def test_found_missed_and_half_true_objects(review):
    found, true = blank(), blank()
    found[50:70, 50:90] = 2
    true[50:70, 70:130] = 2
    true[300:310, 300:340] = 2
    first, missed = review(found, both(1, np.where(found == 2, 204, 51)), true)
    assert (first.kind, first.class_name) == ("found", "vessel")
    assert first.probability == pytest.approx(0.8)
    assert first.overlap == pytest.approx(0.5)
    assert first.error_mass == pytest.approx((0.2 + 0.8) / 2 * 800 * MPP**2)
    assert missed.kind == "missed"
    assert missed.polygon.bounds == (300, 300, 340, 310)
    assert missed.error_mass == pytest.approx(0.8 * 400 * MPP**2)
    assert [first.id, missed.id] == [0, 1]


def test_pixels_to_ignore_neither_count_nor_are_objects(review):
    found, true = blank(), blank()
    found[50:70, 50:90] = 1
    found[400:410, 400:410] = 1
    true[50:70, 50:70] = 1
    true[50:70, 70:90] = IGNORE
    true[400:410, 400:410] = IGNORE
    first, second = review(found, both(0, np.where(found == 1, 255, 0)), true)
    assert first.overlap == 1
    assert first.error_mass == 0
    assert second.overlap is None


def test_of_class_ids_alone_a_pixel_is_right_or_wrong(review):
    found, true = blank(), blank()
    found[50:70, 50:90] = 2
    true[50:70, 70:130] = 2
    true[300:310, 300:340] = 2
    found[300:310, 300:320] = 1  # of another class: the true one is missed all the same
    first, other, missed = review(found, None, true)
    assert [one.kind for one in (first, other, missed)] == ["found", "found", "missed"]
    assert {one.probability for one in (first, other, missed)} == {None}
    assert (first.overlap, other.overlap, missed.overlap) == (0.5, 0, 1)
    assert first.error_mass == pytest.approx(400 * MPP**2)
    assert other.error_mass == pytest.approx(200 * MPP**2)
    assert missed.error_mass == pytest.approx(400 * MPP**2)


def test_truth_alone_and_other_classes(review):
    true = blank()
    true[5:9, 5:9] = 1
    (one,) = review(None, None, true, classes=ClassTable.named(["other"]))
    assert (one.kind, one.class_name, one.probability) == ("true", "other", None)


def test_the_largest_objects_are_kept(review, monkeypatch):
    monkeypatch.setattr(review_objects, "MAX_OBJECTS", 2)
    found = blank()
    for number, side in enumerate((3, 9, 2, 7)):
        found[10 : 10 + side, 20 * number : 20 * number + side] = 1
    objects = review(found, both(0, found * 255), None)
    assert sorted(one.area / MPP**2 for one in objects) == [49, 81]


def test_nothing_to_review(review):
    assert review(None, None, None) == []
