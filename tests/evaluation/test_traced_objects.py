import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.evaluation.review_objects import list_review_objects
from wsi_seg.evaluation.traced_objects import UNLISTED, trace_objects
from wsi_seg.store import create_collection, create_group, open_collection, open_predictions
from wsi_seg.testing.stores import write_image

CLASSES = ClassTable.named(["gland", "vessel"])
HEIGHT, WIDTH = 700, 900
EVERYWHERE = (0, 0, WIDTH, HEIGHT)


def blobs(seed):
    """Label map of two classes, objects of all sizes, some pixels to ignore."""
    noise = np.random.default_rng(seed).normal(size=(2, HEIGHT, WIDTH))
    first, second = (ndimage.gaussian_filter(one, 4) for one in noise)
    ids = np.where(first > 0.04, np.where(second > 0, 1, 2), 0).astype(np.uint8)
    ids[100:140, 200:260] = IGNORE
    return ids


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A slide, its prediction of class ids and its truth."""
    folder = tmp_path_factory.mktemp("traced")
    for name in ("store.zarr", "pred.zarr"):
        create_collection(folder / name)
    slide, prediction = folder / "store.zarr/slide", folder / "pred.zarr/slide"
    write_image(slide, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), {}, mpp=0.5)
    about = {"classes": CLASSES.to_json()}
    write_image(slide / "labels/truth", blobs(1), about, mpp=0.5)
    create_group(prediction, {"saved": "labels", **about})
    found = np.where(blobs(2) == IGNORE, 0, blobs(2)).astype(np.uint8)
    found[:, 450:] = np.where(blobs(1) == IGNORE, 0, blobs(1))[:, 450:]
    write_image(prediction / "labels/prediction", found, about, mpp=0.5)
    (store,), (predicted,) = (
        open_collection(folder / "store.zarr"),
        open_predictions(folder / "pred.zarr"),
    )
    return store, predicted, store.label("truth")


def figures(objects):
    return sorted(
        (
            one.kind,
            one.class_name,
            one.polygon.bounds,
            round(one.area, 3),
            round(one.overlap or 0, 9) if one.kind == "found" else 0,
        )
        for one in objects
    )


def test_all_that_is_listed_is_traced_alike(opened):
    slide, found, true = opened
    listed = list_review_objects(slide, found, true)
    traced = trace_objects(slide, found, true, EVERYWHERE)
    assert traced is not None
    assert {one.id for one in traced} == {UNLISTED}
    assert {one.kind for one in traced} == {"found", "missed"}
    assert figures(traced) == figures(listed)
    truth = trace_objects(slide, None, true, EVERYWHERE)
    assert figures(truth) == figures(list_review_objects(slide, None, true))


@settings(max_examples=15)
@given(st.tuples(*[st.floats(-50, 950)] * 4))
def test_what_lies_in_a_box_is_whole(opened, corners):
    x, y, x_end, y_end = corners
    slide, found, true = opened
    box = (min(x, x_end), min(y, y_end), max(x, x_end) + 1, max(y, y_end) + 1)
    traced = figures(trace_objects(slide, found, true, box))
    everything = figures(trace_objects(slide, found, true, EVERYWHERE))
    assert set(traced) <= set(everything)
    inside = [
        one
        for one in everything
        if box[0] <= one[2][0]
        and box[1] <= one[2][1]
        and one[2][2] <= box[2]
        and one[2][3] <= box[3]
    ]
    assert set(inside) <= set(traced)


def test_too_large_a_box_is_not_looked_at(opened, monkeypatch):
    monkeypatch.setattr("wsi_seg.evaluation.traced_objects._MAX_PX", HEIGHT * WIDTH - 1)
    slide, found, true = opened
    assert trace_objects(slide, found, true, EVERYWHERE) is None
    assert trace_objects(slide, found, true, (0, 0, 200, 200))
    assert trace_objects(slide, found, true, (-900, 0, -800, 100)) == []
