"""Export replaces what it wrote itself, and no file of anybody else, in no format."""

import json
import os
from dataclasses import replace

import pytest

from tests.commands import run, run_json
from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError, OutputError
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.exporting.written import Written
from wsi_seg.testing.stores import digests

# Where each format writes the slide ``slide``, below the folder or file that it is given.
PLACES = {
    "geojson": "out/slide.geojson", "geoparquet": "out/slide.parquet", "asap": "out/slide.xml",
    "table": "out/slide.csv", "png": "out/slide.png", "ome_tiff": "out/slide.labels.ome.tif",
    "ome_zarr": "out/slide.ome.zarr", "coco": "out/all.json", "rle": "out/all.csv",
}  # fmt: skip
SHARED = ("coco", "rle")
CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])


@pytest.fixture
def predictions(tmp_path, make_prediction, rings):
    predictions = make_prediction(tmp_path, rings())
    file = predictions["slide"].path / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["wsi_seg"]["classes"] = CLASSES.to_json()
    file.write_text(json.dumps(document))
    return predictions


def targets_for(tmp_path, kind):
    path = tmp_path / PLACES[kind]
    return ExportTargets(**{kind: path if kind in SHARED else path.parent})


def drawn_by_hand(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        path.mkdir()
        path = path / "notes.txt"
    path.write_text("drawn by hand")
    return path


@pytest.mark.parametrize("kind", PLACES)
def test_a_file_of_somebody_else_stays(tmp_path, predictions, kind):
    theirs = drawn_by_hand(tmp_path / PLACES[kind])
    targets = targets_for(tmp_path, kind)
    if kind in SHARED:
        with pytest.raises(OutputError, match="was not written by an export"):
            export(predictions, None, targets)
    else:
        report = export(predictions, None, targets)
        assert not report.slides
        assert PLACES[kind] in report.failures["slide"]
        assert "--overwrite" in report.failures["slide"]
    assert theirs.read_text() == "drawn by hand"
    report = export(predictions, None, replace(targets, overwrite=True))
    report.require_whole()
    assert not theirs.exists() or theirs.read_bytes() != b"drawn by hand"


@pytest.mark.parametrize("kind", PLACES)
def test_what_export_wrote_it_replaces(tmp_path, predictions, kind):
    targets = targets_for(tmp_path, kind)
    for least in (None, 0.0, 500.0):
        export(predictions, None, replace(targets, min_area_um2=least)).require_whole()


@pytest.mark.parametrize("kind", ["geojson", "ome_zarr", "rle"])
def test_what_was_changed_since_stays(tmp_path, predictions, kind):
    targets = targets_for(tmp_path, kind)
    export(predictions, None, targets).require_whole()
    path = tmp_path / PLACES[kind]
    theirs = path / "zarr.json" if path.is_dir() else path
    theirs.write_text(theirs.read_text() + "\n")
    changed = theirs.read_text()
    with pytest.raises((BatchError, OutputError), match="changed since"):
        export(predictions, None, targets).require_whole()
    assert theirs.read_text() == changed


def test_a_folder_of_exports_has_the_same_bytes_from_run_to_run(tmp_path, predictions):
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for kind in ("geojson", "table", "png", "ome_tiff", "ome_zarr", "coco"):
            export(predictions, None, targets_for(folder, kind)).require_whole()
        for file in folder.rglob("*"):
            os.utime(file, (number, number))
        found.append(digests(folder))
    assert found[0] == found[1]
    assert any(".exported" in name for name in found[0])
    export(predictions, None, targets_for(tmp_path / "0", "geojson")).require_whole()


def test_a_file_that_was_taken_away_is_written_again(tmp_path, predictions):
    targets = targets_for(tmp_path, "geojson")
    export(predictions, None, targets).require_whole()
    (tmp_path / PLACES["geojson"]).unlink()
    export(predictions, None, targets).require_whole()
    drawn_by_hand(tmp_path / PLACES["geojson"])
    assert not export(predictions, None, targets).slides


def test_the_command_line_keeps_drawings_and_overwrites_when_asked(tmp_path, predictions):
    theirs = drawn_by_hand(tmp_path / "polygons" / "slide.geojson")
    words = ("export", predictions.path, "--geojson", theirs.parent)
    result = run(*words)
    assert result.exit_code == 1
    assert "was not written by an export" in result.output
    assert theirs.read_text() == "drawn by hand"
    assert run_json(*words, "--overwrite")["objects"] == {"slide": 3}


def test_what_a_killed_export_has_written_is_written_again(tmp_path):
    path = tmp_path / "a.geojson"

    def killed():
        with Written(overwrite=False).new(path) as new:
            new.write_text("whole, and not noted yet")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    with Written(overwrite=False).new(path) as new:
        new.write_text("again")
    path.write_text("drawn by hand")
    with pytest.raises(OutputError, match="was not written by an export"):
        Written(overwrite=False).require_free(path)


@pytest.mark.parametrize("kind", PLACES)
def test_what_a_killed_export_left_half_written_is_removed(tmp_path, predictions, kind):
    whole = tmp_path / PLACES[kind]
    left = [whole, whole.parent / ".exported" / whole.name]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.1f.0123abcd.partial").write_text("half")
    export(predictions, None, targets_for(tmp_path, kind)).require_whole()
    assert not list(tmp_path.rglob("*.partial"))
