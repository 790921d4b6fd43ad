"""The loop closes: what a reviewer said becomes a label that training takes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from shapely.geometry import box

from wsi_seg.annotations import read_annotations
from wsi_seg.classes import IGNORE
from wsi_seg.errors import BusyError
from wsi_seg.evaluation.review_objects import ReviewObject
from wsi_seg.geometry import Region
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.objects import read_objects
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection
from wsi_seg.store.lock import locked
from wsi_seg.testing.stores import write_image
from wsi_seg.viewer.review import Drawing, Review, read_review, review_version, write_review


def seen_object(number, x):
    return ReviewObject(number, "found", "gland", "#d55e00", box(x, 10, x + 20, 30), 400.0)


RINGS: list[list[tuple[float, float]]] = [
    [(10, 60), (40, 60), (40, 90), (10, 90)],
    [(20, 70), (30, 70), (30, 80), (20, 80)],
]
OBJECTS = [seen_object(number, 40 * number + 10) for number in range(4)]
REVIEW = Review(
    verdicts={0: "right", 1: "wrong", 2: "unsure"},
    drawings=[Drawing(class_name="gland", rings=RINGS)],
)


def test_verdicts_survive_new_numbers(tmp_path):
    path = tmp_path / "slide.geojson"
    write_review(path, REVIEW, OBJECTS, over="new")
    again = [seen_object(3 - number, 40 * number + 10) for number in range(4)]
    found = read_review(path, again)
    assert found.verdicts == {3: "right", 2: "wrong", 1: "unsure"}
    assert found.drawings == REVIEW.drawings


def test_what_was_right_outlives_the_prediction(tmp_path):
    path = tmp_path / "slide.geojson"
    write_review(path, REVIEW, OBJECTS, over="new")
    newer = [seen_object(0, 500)]
    found = read_review(path, newer)
    assert found.verdicts == {}
    redrawn = found.drawings[-1]
    assert len(found.drawings) == 2
    assert redrawn.class_name == "gland"
    assert set(redrawn.rings[0]) == {(10, 10), (30, 10), (30, 30), (10, 30)}
    write_review(path, found, newer, over=review_version(path))
    assert read_review(path, newer) == found


def test_annotations_come_from_the_review(tmp_path):
    write_review(tmp_path / "slide.geojson", REVIEW, OBJECTS, over="new", weight=0.5)
    items = read_annotations(tmp_path / "slide.geojson").items
    assert {item.source for item in items} == {"review"}
    assert [item.class_name for item in items] == ["gland", "ignore", "ignore", "gland"]


def test_annotate_draws_right_wrong_and_unsure(tmp_path):
    create_collection(tmp_path / "store.zarr")
    group = tmp_path / "store.zarr/slide"
    write_image(group, np.zeros((120, 200, 3), np.uint8), {"kind": "slide"})
    write_review(tmp_path / "review/slide.geojson", REVIEW, OBJECTS, over="new", weight=0.5)
    collection = open_collection(tmp_path / "store.zarr")
    report = annotate(collection, [tmp_path / "review"], name="review", progress=Silent())
    assert report.classes == ("gland",)
    (store,) = collection
    ids = store.label("review").read(Region(level=0, y=0, x=0, height=120, width=200))
    expected = np.zeros((120, 200), dtype=np.uint8)
    expected[10:30, 10:30] = 1
    expected[10:30, 90:110] = IGNORE
    expected[10:30, 130:150] = IGNORE  # nobody looked at it
    expected[60:90, 10:40] = 1
    expected[70:80, 20:30] = 0  # a hole
    assert np.array_equal(ids, expected)
    kept = read_objects(store, "review")
    assert list(kept.source) == ["review", "review"]
    assert list(kept.weight) == [0.5, 0.5]


def test_a_review_of_before_shapes_had_holes_is_read(tmp_path):
    path = tmp_path / "slide.geojson"
    write_review(path, REVIEW, OBJECTS, over="new")
    document = json.loads(path.read_text())
    (drawing,) = document["wsi_seg_review"]["drawings"]
    drawing["ring"] = drawing.pop("rings")[0]
    path.write_text(json.dumps(document))
    assert read_review(path, OBJECTS).drawings[0].rings == [RINGS[0]]


def test_a_viewer_waits_for_another_one_and_then_looks_again(tmp_path):
    path = tmp_path / "slide.geojson"
    over = write_review(path, REVIEW, OBJECTS, over="new")
    with ThreadPoolExecutor() as threads:
        with locked(tmp_path, "wsi-seg view"):  # the other one has looked, and replaces now
            mine = threads.submit(write_review, path, Review(), OBJECTS, over=over)
            time.sleep(0.2)
            path.write_text("theirs")
        with pytest.raises(BusyError, match="somebody else saved"):
            mine.result()
    assert path.read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_of_many_at_once_one_replaces_a_review(tmp_path):
    path = tmp_path / "reviews/slide.geojson"
    over = write_review(path, REVIEW, OBJECTS, over="new")

    def saved(weight):
        try:
            return write_review(path, REVIEW, OBJECTS, over=over, weight=weight)
        except BusyError:
            return None

    with ThreadPoolExecutor(6) as threads:
        versions = list(threads.map(saved, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert [one for one in versions if one] == [review_version(path)]
