"""zarr lists what is in our collections, finished or not, without a warning."""

import json
import shutil

import numpy as np
import pytest
import torch
import zarr

import wsi_seg.inference.save as save_module
from tests.cards import make_card
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.geometry import Extent
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.objects import read_objects
from wsi_seg.masks.reading import Reading
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.store.collection import Predictions
from wsi_seg.store.digests import store_digest
from wsi_seg.store.lock import locked
from wsi_seg.store.writer import write_strip_of

OPTIONS = InferOptions(precision="fp32", batch=4, strip_px=512)
EXTENT = Extent(height=1300, width=64)
BOX = {"type": "Polygon", "coordinates": [[[0, 0], [0, 20], [20, 20], [20, 0], [0, 0]]]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Slides with annotations, a prediction of them, and the model."""
    folder = tmp_path_factory.mktemp("members")
    torch.manual_seed(0)
    card = make_card("gland", "vessel")
    save_checkpoint(folder / "m.safetensors", build_network(card.spec), card)
    for name in ("a", "b"):
        write_coordinate_tiff(folder / f"{name}.tif", extents=[EXTENT], mpp=0.5)
    tile_slides([folder / "a.tif", folder / "b.tif"], folder / "s.zarr", progress=Silent())
    slides = open_collection(folder / "s.zarr")
    (folder / "a.geojson").write_text(json.dumps(BOX))
    reading = Reading(default_class="gland")
    annotate(slides, [folder / "a.geojson"], reading=reading, progress=Silent()).require_whole()
    infer(slides, folder / "m.safetensors", folder / "pred.zarr", OPTIONS)
    return folder


def members(path):
    """Everything that zarr finds below a folder; any warning is an error."""
    return dict(zarr.open_group(path, mode="r").members(max_depth=None))


def arrays(path):
    return {name for name, found in members(path).items() if isinstance(found, zarr.Array)}


def test_slides_and_annotations_are_listed(made):
    found = arrays(made / "s.zarr")
    assert {"a/0", "b/0", "a/labels/annotations/0", "b/labels/tissue/0"} <= found
    assert {members(made / "s.zarr")[name].shape for name in found if ".wsi_seg" in name} == {(0,)}
    assert {name.rpartition("/")[2] for name in found} <= {"0", "1", ".wsi_seg"}
    image = zarr.open_group(made / "s.zarr/a", mode="r")
    assert isinstance(image["labels/annotations/0"], zarr.Array)


def test_finished_and_unfinished_predictions_are_listed(made, tmp_path, monkeypatch):
    assert {"a/0", "a/labels/prediction/0"} <= arrays(made / "pred.zarr")
    out = tmp_path / "cut.zarr"
    done: list[dict[str, int]] = []

    class Killed(BaseException):
        pass

    def dying(*args):
        if len(done) == 2:
            raise Killed
        done.append(write_strip_of(*args))
        return done[-1]

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    with pytest.raises(Killed):
        infer(open_collection(made / "s.zarr"), made / "m.safetensors", out, OPTIONS)
    assert "a" in Predictions(out).unfinished()
    with locked(out, "wsi-seg infer"):
        assert set(members(out)) == {".wsi_seg"}


@pytest.fixture
def earlier(made, tmp_path):
    """The same slides and predictions, laid out as stores were at first."""
    for name in ("s.zarr", "pred.zarr"):
        shutil.copytree(made / name, tmp_path / name)
        for own in sorted((tmp_path / name).rglob(".wsi_seg")):
            for file in own.iterdir():
                if file.name != "zarr.json":
                    file.rename(own.parent / file.name)
            shutil.rmtree(own)
    return tmp_path


def test_stores_of_the_earlier_layout_are_read(made, earlier):
    slides, predictions = (
        open_collection(earlier / "s.zarr"),
        open_predictions(earlier / "pred.zarr"),
    )
    objects = read_objects(slides["a"], "annotations")
    np.testing.assert_array_equal(objects.bbox, [[0, 0, 20, 20]])
    assert store_digest(slides["a"].path) == store_digest(made / "s.zarr/a")
    assert store_digest(slides["a"].path)
    report = infer(slides, made / "m.safetensors", predictions.path, OPTIONS)
    assert report.tiles == 0  # its journal says that all is done
