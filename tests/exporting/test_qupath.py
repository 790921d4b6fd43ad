"""A QuPath project: the keys with which QuPath 0.5.1 was seen to load one, and where all is."""

import json
from urllib.parse import unquote, urlparse

import geopandas
import numpy as np
import pytest
from PIL import Image

from wsi_seg.errors import OutputError
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets


@pytest.fixture
def slides(tmp_path):
    """Folder with the file of the slide."""
    folder = tmp_path / "my slides"
    folder.mkdir()
    Image.fromarray(np.zeros((1400, 600, 3), np.uint8)).save(folder / "slide.png")
    return folder


@pytest.fixture
def project(tmp_path, slides, make_prediction, rings):
    """Folder of an exported project."""
    folder = tmp_path / "project"
    targets = ExportTargets(qupath_project=folder, source=slides)
    report = export(make_prediction(tmp_path, rings()), None, targets)
    assert report.objects == {"slide": 3}
    assert set(report.files) == {
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != ".exported"
    }
    return folder


def test_each_entry_has_a_slide_that_exists_and_its_objects(project, slides):
    about = json.loads((project / "project.qpproj").read_text())
    assert isinstance(about["createTimestamp"], int)
    assert isinstance(about["modifyTimestamp"], int)
    (entry,) = about["images"]
    assert entry["entryID"] == about["lastID"] == 1
    assert entry["imageName"] == "slide.png"
    uri = urlparse(entry["serverBuilder"]["uri"])
    assert uri.scheme == "file"
    assert unquote(uri.path) == str(slides / "slide.png")
    objects = geopandas.read_file(project / "objects" / entry["metadata"]["objects"])
    assert len(objects) == 3


def test_a_project_has_the_keys_that_qupath_loads(project):
    """By `DefaultProject.loadProject` and `ServerBuilder` of QuPath 0.5."""
    about = json.loads((project / "project.qpproj").read_text())
    kinds = {
        "version": str, "createTimestamp": int, "modifyTimestamp": int, "uri": str, "lastID": int,
        "images": list,
    }  # fmt: skip
    assert {key: type(value) for key, value in about.items()} == kinds
    kinds = {"serverBuilder": dict, "entryID": int, "imageName": str, "metadata": dict}
    for entry in about["images"]:
        assert {key: type(value) for key, value in entry.items()} == kinds
        builder = entry["serverBuilder"]
        assert builder.keys() == {"builderType", "uri", "args"}
        assert builder["builderType"] == "uri"
        assert builder["args"] == []
        assert all(isinstance(value, str) for value in entry["metadata"].values())
    classes = json.loads((project / "classifiers" / "classes.json").read_text())["pathClasses"]
    assert all(one.keys() == {"name", "color"} for one in classes)


def test_classes_have_the_colours_that_objects_have(project):
    listed = json.loads((project / "classifiers" / "classes.json").read_text())["pathClasses"]
    colours = {
        one["name"]: list((one["color"] % 2**32).to_bytes(4)[1:]) for one in listed
    }  # opaque, as a signed number
    assert all(-(2**24) <= one["color"] < 0 for one in listed)
    objects = geopandas.read_file(project / "objects" / "slide.geojson")
    assert {one["name"]: one["color"] for one in objects["classification"]} == colours


def test_a_project_that_exists_is_kept(tmp_path, project, slides, make_prediction):
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    other = make_prediction(tmp_path / "other", np.ones((9, 9), np.uint8))
    with pytest.raises(OutputError, match="has a QuPath project already; expected another folder"):
        export(other, None, ExportTargets(qupath_project=project, source=slides))
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_a_project_needs_its_slides(tmp_path, make_prediction):
    with pytest.raises(OutputError, match=r"got no slides; expected .* as --source"):
        ExportTargets(qupath_project=tmp_path / "project")
    (tmp_path / "slides").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "slides" / "other.png")
    predictions = make_prediction(tmp_path, np.ones((9, 9), np.uint8))
    targets = ExportTargets(qupath_project=tmp_path / "project", source=tmp_path / "slides")
    with pytest.raises(OutputError, match="got no files of 'slide' in"):
        export(predictions, None, targets)
    assert not (tmp_path / "project").exists()
