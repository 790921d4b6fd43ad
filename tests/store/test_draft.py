"""An image or a label is written whole: seen when it is done, never before."""

import json

import numpy as np
import pytest

from wsi_seg.geometry import Extent, dyadic_extents, extend_pyramid
from wsi_seg.store import (
    Collection,
    LabelInfo,
    Layout,
    PredictionInfo,
    create_collection,
    open_collection,
    open_multiscale,
    open_predictions,
    writing,
)
from wsi_seg.testing.stores import make_store

EXTENT = Extent(height=2300, width=700)
IDS = np.random.default_rng(0).integers(0, 3, (EXTENT.height, EXTENT.width), dtype=np.uint8)
LAYOUT = Layout.of(dyadic_extents(EXTENT, 3), channels=None, mpp=0.5, downsample=2.0)


@pytest.fixture
def slide(tmp_path):
    make_store(tmp_path, "a", 500, 300)
    return open_collection(tmp_path)["a"]


def _write(path, ids, layout=LAYOUT):
    with writing(path, layout, LabelInfo().to_json()) as draft:
        for strip in draft.strips():
            draft.write(strip, ids[strip.slices])


def test_a_label_holds_what_was_written_at_every_level(slide):
    _write(slide.path / "labels" / "mine", IDS)
    label = slide.label("mine")
    assert (label.downsample, label.slide_mpp) == (2.0, 0.5)
    assert np.array_equal(label.read(EXTENT.region()), IDS)
    assert label.pyramid.extents == LAYOUT.extents
    coarse = label.read(label.pyramid.extents[1].region(1))
    assert np.array_equal(
        coarse[:-1, :-1], IDS[1::2, 1::2][: len(coarse) - 1, : coarse.shape[1] - 1]
    )
    there = sorted(child.name for child in slide.path.iterdir())
    assert there == [".wsi_seg", "0", "labels", "zarr.json"]


def test_an_older_one_stays_until_the_new_one_is_complete(slide):
    path = slide.path / "labels" / "mine"
    _write(path, IDS)

    def fail_after_one_strip():
        with writing(path, LAYOUT, LabelInfo().to_json()) as draft:
            strip = next(draft.strips())
            draft.write(strip, np.zeros((strip.height, strip.width), dtype=np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_one_strip()
    assert np.array_equal(slide.label("mine").read(EXTENT.region()), IDS)
    _write(path, IDS[::-1])  # not continued: nothing of the stopped one is left
    assert np.array_equal(slide.label("mine").read(EXTENT.region()), IDS[::-1])
    assert not (slide.path / ".wsi_seg/partial").exists()


def test_all_levels_can_be_written_by_hand(slide):
    layout = Layout.of(dyadic_extents(EXTENT, 2), channels=None, mpp=None, coarser=False)
    with writing(slide.path / "labels" / "mine", layout, {}) as draft:
        for strip in draft.strips(1):
            draft.write(strip, np.full((strip.height, strip.width), 7, dtype=np.uint8))
    label = slide.label("mine")
    assert not label.read(EXTENT.region()).any()
    assert (label.read(label.pyramid.extents[1].region(1)) == 7).all()


def test_a_prediction_gets_its_name_together_with_the_label_inside(tmp_path):
    create_collection(tmp_path)
    image = Layout.of(extend_pyramid([EXTENT]), channels=2, mpp=None)
    label = Layout.of(extend_pyramid([EXTENT]), channels=None, mpp=None)
    with writing(tmp_path / "a", image, PredictionInfo().to_json()) as draft:
        inner = draft.inside("labels/prediction", label, LabelInfo().to_json())
        for strip in draft.strips():
            draft.write(strip, np.stack([IDS, IDS], axis=-1)[strip.slices])
            inner.write(strip, IDS[strip.slices])
        assert Collection(tmp_path).names() == ()
    (store,) = open_predictions(tmp_path)
    assert np.array_equal(store.image.read(EXTENT.region())[..., 1], IDS)
    assert np.array_equal(store.label("prediction").read(EXTENT.region()), IDS)
    digests = json.loads(
        (store.path / "labels" / "prediction" / ".wsi_seg/digests.json").read_text()
    )
    assert digests["files"]


def test_a_layout_like_an_image_covers_it(slide):
    _write(slide.path / "labels" / "mine", IDS)
    layout = Layout.like(open_multiscale(slide.path / "labels" / "mine"), channels=3)
    assert layout == Layout.of(
        LAYOUT.extents, channels=3, mpp=LAYOUT.mpp, downsample=LAYOUT.downsample
    )


def test_a_collection_whose_making_was_killed_is_made_again(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".zarr.json.0a1b2c3d.partial").write_text("{")
    create_collection(tmp_path / "c")
    assert len(open_collection(tmp_path / "c")) == 0
