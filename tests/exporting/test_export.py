import json

import numpy as np
import pytest
from PIL import Image

from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.annotations import read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError, StoreError
from wsi_seg.exporting.geojson import write_geojson
from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.overview import write_overview
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.geometry import Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_predictions,
)

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])


def test_exported_polygons_drawn_again_give_the_label_map(tmp_path, make_prediction, rings):
    labels = rings()
    predictions = make_prediction(tmp_path, labels)
    report = export(predictions, None, ExportTargets(geojson=tmp_path / "out"), progress=Silent())
    assert report.objects == {"slide": 3}
    path = tmp_path / "out" / "slide.geojson"
    found = read_annotations(path)
    assert found.repairs == ()
    region = Region(level=0, y=0, x=0, height=700, width=300)
    drawn = Rasterizer(found.items, CLASSES).draw(region, (2.0, 2.0))
    np.testing.assert_array_equal(drawn, labels)
    first = json.loads(path.read_text())["features"][0]["properties"]
    assert first["objectType"] == "annotation"
    assert {"gland": [255, 0, 0], "vessel": [0, 255, 0]}[first["classification"]["name"]] == first[
        "classification"
    ]["color"]


def test_small_objects_are_left_out_by_their_area_in_um2(tmp_path, make_prediction, rings):
    # 2 x 2 px of 1 um are 4 um2; 20 x 40 px are 800.
    store = make_prediction(tmp_path, rings())["slide"].label("prediction")
    found = [outlines(store, min_area_um2=least) for least in (0, 4, 4.1, 801)]
    assert [len(list(some)) for some in found] == [len(some) for some in found] == [3, 3, 2, 1]


def test_what_is_left_out_as_too_small_is_said(tmp_path, make_prediction):
    labels = np.zeros((60, 60), np.uint8)
    labels[10:20, 10:20] = 1
    labels[30, 30:33] = 1  # three pixels of 1 um2
    predictions = make_prediction(tmp_path, labels)
    targets = ExportTargets(geojson=tmp_path / "out")
    report = export(predictions, None, targets, progress=Silent())
    assert report.lines()[:2] == [
        "slide: 1 object, without 1 below 4 um2", "--min-area-um2 0 keeps small objects"
    ]  # fmt: skip
    every = ExportTargets(geojson=tmp_path / "out", min_area_um2=0)
    report = export(predictions, None, every, progress=Silent())
    assert report.lines()[0] == "slide: 2 objects"


def test_gzip_by_suffix_and_unwritable_targets(tmp_path, make_prediction, rings):
    store = make_prediction(tmp_path, rings())["slide"].label("prediction")
    write_geojson(tmp_path / "a.geojson.gz", outlines(store))
    assert len(read_annotations(tmp_path / "a.geojson.gz").items) == 3
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_geojson(tmp_path / "file" / "b.geojson", outlines(store))


def test_overview_shows_outlines_in_the_class_colour(tmp_path):
    picture = np.full((1200, 800, 3), 200, dtype=np.uint8)
    ids = np.zeros((600, 400), dtype=np.uint8)
    ids[200:400, 100:300] = 1
    store = MemoryStore(MemoryImage(picture, mpp=0.5))
    write_overview(store, [(MemoryImage(ids), CLASSES)], tmp_path / "o.png", longest_px=600)
    drawn = np.asarray(Image.open(tmp_path / "o.png"))
    assert drawn.shape == (600, 400, 3)
    assert (drawn[200, 120:280] == (255, 0, 0)).all()
    assert (drawn[300, 200] == 200).all()
    assert not list(tmp_path.glob("*.partial"))


def test_legend_and_scale_bar_are_readable_on_black(tmp_path):
    picture = np.zeros((1200, 800, 3), dtype=np.uint8)
    store = MemoryStore(MemoryImage(picture, mpp=0.5))
    label = MemoryImage(np.zeros((600, 400), dtype=np.uint8))
    write_overview(store, [(label, CLASSES)], tmp_path / "o.png", longest_px=600)
    drawn = np.asarray(Image.open(tmp_path / "o.png"))
    for part in (drawn[5:28, 28:80], drawn[560:600, 5:120]):  # the first name, the bar
        assert ((part == 255).all(axis=2)).mean() > 0.1
        assert ((part == 20).all(axis=2)).any()


def test_an_empty_collection_says_what_to_do(tmp_path):
    create_collection(tmp_path / "empty.zarr")
    empty = open_predictions(tmp_path / "empty.zarr")
    with pytest.raises(StoreError, match="wsi-seg infer"):
        export(empty, None, ExportTargets(geojson=tmp_path), progress=Silent())
