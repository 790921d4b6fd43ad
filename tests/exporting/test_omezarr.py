"""Exported OME-Zarr, judged by its own models, by zarr-python and by ome-zarr."""

import json
import warnings
import zipfile

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from scipy import ndimage

from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError
from wsi_seg.exporting.omezarr import write_ome_zarr
from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.store import open_image, write_strip

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])
MODELS = {"0.4": ome_zarr_models.v04, "0.5": ome_zarr_models.v05}


@pytest.fixture
def prediction(tmp_path, make_prediction):
    """Label map of two strips with objects of two classes, and what was exported of it."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(1100, 1301)), 6)
    labels = ((noise > 0.01) * (1 + (np.arange(1301) > 600))).astype(np.uint8)
    store = make_prediction(tmp_path, labels)["slide"]
    document = json.loads((store.path / "zarr.json").read_text())
    document["attributes"]["wsi_seg"]["classes"] = CLASSES.to_json()
    (store.path / "zarr.json").write_text(json.dumps(document))
    values = np.stack([(labels == n) * np.uint8(200) for n in (1, 2)], axis=2)
    for y in range(0, 1100, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    return labels, open_image(store.path), outlines(store.label("prediction"))


def pixels(store, path):
    return np.asarray(zarr.open_array(store, path=path, mode="r")[...])


def expected_objects(labels):
    """Numbers of the objects in the order of their first pixels."""
    found = np.zeros(labels.shape, np.int64)
    for value in (1, 2):
        parts = ndimage.label(labels == value)[0]
        found += np.where(parts > 0, parts + found.max(), 0)
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), np.int64)
    ranks[np.argsort(np.where(np.arange(len(first)) == 0, -1, first))] = np.arange(len(first))
    return ranks[number].reshape(labels.shape)


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_models_and_readers_take_it(tmp_path, prediction, ngff):
    labels, image, objects = prediction
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, image, objects, "slide", ngff=ngff)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (2 if ngff == "0.4" else 3)
    MODELS[ngff].Image.from_zarr(group)
    for name in ("classes", "objects"):
        label = MODELS[ngff].ImageLabel.from_zarr(zarr.open_group(path / "labels" / name, mode="r"))
        coloured = label.ome_attributes if ngff == "0.5" else label.attributes
        assert len(coloured.image_label.colors) == (2 if name == "classes" else len(objects.table))
    np.testing.assert_array_equal(pixels(path, "0")[1], (labels == 2) * 200)
    np.testing.assert_array_equal(pixels(path, "labels/classes/0"), labels)
    numbers = pixels(path, "labels/objects/0")
    assert numbers.dtype == np.uint32
    np.testing.assert_array_equal(numbers, expected_objects(labels))
    assert pixels(path, "labels/objects/1").shape == pixels(path, "1").shape[1:]
    if ngff == "0.4":
        array = json.loads((path / "labels/objects/0/.zarray").read_text())
        assert array["compressor"]["id"] == "blosc"
        assert array["dimension_separator"] == "/"


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_ome_zarr_finds_the_image_and_its_labels(tmp_path, prediction, ngff):
    _, image, objects = prediction
    write_ome_zarr(tmp_path / "a.ome.zarr", image, objects, "slide", ngff=ngff)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ome-zarr itself
        nodes = list(Reader(parse_url(tmp_path / "a.ome.zarr"))())
    shapes = [node.data[0].shape for node in nodes if node.data]
    assert shapes == [(2, 1100, 1301), (1100, 1301), (1100, 1301)]


def test_levels_of_objects_are_their_pixels(tmp_path, prediction):
    _, image, objects = prediction
    write_ome_zarr(tmp_path / "a.ome.zarr", image, objects, "slide")
    finer, coarser = (pixels(tmp_path / "a.ome.zarr", f"labels/objects/{n}") for n in (0, 1))
    rows = np.minimum(2 * np.arange(coarser.shape[0]) + 1, finer.shape[0] - 1)
    columns = np.minimum(2 * np.arange(coarser.shape[1]) + 1, finer.shape[1] - 1)
    np.testing.assert_array_equal(coarser, finer[rows][:, columns])


def test_one_file_begins_with_metadata_and_is_read_in_place(tmp_path, prediction):
    labels, image, objects = prediction
    path = tmp_path / "a.ozx"
    write_ome_zarr(path, image, objects, "slide")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert json.loads(archive.comment.rstrip(b"\0")) == {"ome": {"version": "0.5"}}
        assert archive.comment.endswith(b"\0")
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    metadata = [name for name in names if name.endswith("zarr.json")]
    assert names[: len(metadata)] == metadata
    depths = [name.count("/") for name in metadata]
    assert metadata[0] == "zarr.json"
    assert depths == sorted(depths)
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        ome_zarr_models.v05.Image.from_zarr(group)
        np.testing.assert_array_equal(pixels(store, "labels/classes/0"), labels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ozx", "pred.zarr"]


def test_one_file_of_version_04_is_refused():
    with pytest.raises(OutputError, match=r"got OME-Zarr 0\.4 as one file; expected 0\.5"):
        ExportTargets(ngff="0.4", zipped=True)
