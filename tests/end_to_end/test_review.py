"""The loop closes: predict, review in the viewer, annotate, train on what was reviewed."""

import pytest
from starlette.testclient import TestClient

from tests.commands import run_json as run
from tests.makers.painted import paint_prediction
from wsi_seg.masks.objects import read_objects
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.viewer.app import make_app
from wsi_seg.viewer.catalog import Catalog

RECIPE = """
classes: [{name: gland}]
data: {stores: [store.zarr], label: review, validation: 0}
mpp: 2.0
patch_px: 64
sampling: {mix: {objects: 0.5, tissue: 0.5}, patches_per_epoch: 8}
model: {encoder: tu-mobilenetv3_small_050, weights: null}
train: {epochs: 1, batch_size: 4, workers: 0, precision: fp32}
"""


@pytest.mark.slow
def test_a_reviewed_prediction_is_learned_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = paint_prediction(tmp_path)
    catalog = Catalog(open_collection(seen.store), open_predictions(seen.prediction), "")
    page = TestClient(
        make_app(catalog, review=tmp_path / "review", token=None), base_url="http://localhost"
    )
    objects = page.get("/slides/painted/objects").json()
    verdicts = {one["id"]: "wrong" if one["box"] == [0, 0, 60, 48] else "right" for one in objects}
    assert set(verdicts.values()) == {"wrong", "right"}
    drawing = {"class_name": "gland", "rings": [[[900, 900], [1000, 900], [1000, 1000]]]}
    review = {"verdicts": verdicts, "drawings": [drawing]}
    headers = {"origin": "http://localhost", "if-match": '"new"'}
    saved = page.put("/slides/painted/review", json=review, headers=headers)
    assert saved.status_code == 200
    annotated = run("annotate", "store.zarr", "review", "--name", "review")
    assert annotated["objects"] == {"painted": len(objects)}  # one less, one more
    (store,) = open_collection(seen.store)
    assert set(read_objects(store, "review").source) == {"review"}
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert run("train", "recipe.yaml", "--out", "run")["epochs"] == 1
