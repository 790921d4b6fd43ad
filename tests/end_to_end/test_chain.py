"""The chain as a user types it, on two small made slides: every verb, every result."""

import pytest

from tests.commands import run_json as run
from wsi_seg.annotations import read_annotations
from wsi_seg.geometry import Extent
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.testing.tissue import write_tissue_slide

RECIPE = """
name: small
classes: [{name: gland}]
data: {stores: [store.zarr], label: annotations, validation: [second]}
mpp: 2.0
patch_px: 64
sampling: {mix: {objects: 0.5, tissue: 0.5}, patches_per_epoch: 16}
model: {encoder: tu-mobilenetv3_small_050, weights: null}
train: {epochs: 1, batch_size: 4, workers: 0, precision: fp32}
"""


@pytest.mark.slow
def test_from_slides_to_polygons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slides = tmp_path / "slides"
    slides.mkdir()
    for name, seed in (("first", 1), ("second", 2)):
        truth = write_tissue_slide(slides / f"{name}.tif", height=1500, width=1900, seed=seed)
        truth.rename(tmp_path / truth.name)
    assert run("info", slides / "first.tif")["status"] == "done"
    tiled = run("tile", slides, "--out", "store.zarr", "--verify")
    assert [slide["slide"] for slide in tiled["verified"]] == ["first", "second"]
    assert open_collection(tmp_path / "store.zarr").names() == ("first", "second")
    annotated = run("annotate", "store.zarr", "first.geojson", "second.geojson")
    assert all(count > 0 for count in annotated["objects"].values())
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run("train", "recipe.yaml", "--out", "run")
    inferred = run("infer", "--overlap", "0.5")  # literally: store.zarr and run/ are found
    assert inferred["tiles"] == sum(slide["tiles"] for slide in inferred["slides"]) > 0
    for store in open_predictions(tmp_path / "pred.zarr"):
        assert store.pyramid.extent == Extent(height=375, width=475)
        assert store.pyramid.mpp == 2.0
    scores = run("evaluate", "pred.zarr", "--truth", "store.zarr")
    assert {row["slide"] for row in scores["slides"]} == {"first", "second"}
    exported = run("export", "pred.zarr", "--geojson", "polygons", "--overview", "overviews")
    assert len(exported["files"]) == 4
    for name in ("first", "second"):
        assert (tmp_path / "overviews" / f"{name}.png").stat().st_size > 1000
        found = read_annotations(tmp_path / "polygons" / f"{name}.geojson")
        assert len(found.items) == exported["objects"][name]
