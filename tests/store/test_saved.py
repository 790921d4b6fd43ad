"""What is saved of a prediction, probabilities, class ids or both: opened, shown and checked."""

import shutil

import numpy as np
import pytest

from tests.makers.painted import NAME, write_prediction
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Region
from wsi_seg.progress import Silent
from wsi_seg.store import SAVED, open_predictions, update_attributes
from wsi_seg.store.audit import audit_collection
from wsi_seg.store.digests import write_digests

HEIGHT, WIDTH = 611, 333
PROBABILITY = (np.arange(HEIGHT)[:, None] * 5 + np.arange(WIDTH) * 3).astype(np.uint8)
WHOLE = Region(level=0, y=0, x=0, height=HEIGHT, width=WIDTH)


@pytest.fixture(params=SAVED)
def predicted(request, tmp_path):
    write_prediction(tmp_path / "p.zarr", PROBABILITY, saved=request.param)
    write_digests(tmp_path / "p.zarr" / NAME)
    return tmp_path / "p.zarr", request.param


def test_every_kind_opens_with_its_size_resolution_and_notes(predicted):
    path, saved = predicted
    update_attributes(path / NAME, {"quarantined": [[0, 8, "gone"]]})
    (store,) = open_predictions(path)
    assert store.saved == saved
    assert (store.pyramid.extent.height, store.pyramid.extent.width) == (HEIGHT, WIDTH)
    assert store.pyramid.mpp == 2.0
    assert store.attributes["kind"] == "prediction"
    assert store.attributes["downsample"] == 4.0
    assert store.image.name == NAME
    assert store.warning == f"{NAME}: 1 tile could not be read; background is assumed there"
    assert NAME in repr(store)
    assert f"{WIDTH} x {HEIGHT}" in open_predictions(path)._repr_html_()


def test_probabilities_are_there_or_the_error_says_how_to_get_them(predicted):
    path, saved = predicted
    (store,) = open_predictions(path)
    if saved != "labels":
        assert np.array_equal(store.probabilities.read(WHOLE)[..., 0], PROBABILITY)
        return
    with pytest.raises(StoreError, match=r"class ids alone; .*`wsi-seg infer --save both --over"):
        store.probabilities  # noqa: B018 (a property)
    assert np.array_equal(store.image.read(WHOLE), PROBABILITY > 127)


def test_every_kind_is_verified(predicted):
    path, saved = predicted

    def faults():
        return audit_collection(open_predictions(path), progress=Silent()).faults

    assert faults() == {}
    notes = path / NAME / "zarr.json"
    kept = notes.read_text()
    notes.write_text(kept.replace("256", "257"))
    assert "digest differs" in faults()[NAME][0] or "has changed" in faults()[NAME][0]
    notes.write_text(kept)
    if saved != "probabilities":
        shutil.rmtree(path / NAME / "labels" / "prediction")
        assert faults()[NAME][-1] == "label prediction is listed and missing"


def test_class_ids_that_are_gone_and_unknown_words_are_refused(tmp_path):
    write_prediction(tmp_path / "p.zarr", PROBABILITY, saved="labels")
    shutil.rmtree(tmp_path / "p.zarr" / NAME / "labels")
    with pytest.raises(StoreError, match="labels/prediction"):
        open_predictions(tmp_path / "p.zarr")[NAME]
    update_attributes(tmp_path / "p.zarr" / NAME, {"saved": ["labels"]})
    with pytest.raises(
        StoreError, match=r"got saved=\"\['labels'\]\"; expected 'probabilities', 'lab"
    ):
        open_predictions(tmp_path / "p.zarr")[NAME]
