import json

import numpy as np
import tifffile

from tests.commands import run
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.geometry import Extent
from wsi_seg.store import open_collection

SQUARE = [[5, 5], [25, 5], [25, 25], [5, 25], [5, 5]]


def make(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    write_coordinate_tiff(folder / "a.tif", extents=[Extent(height=100, width=130)])
    geometry = {"type": "Polygon", "coordinates": [SQUARE]}
    properties = {"classification": {"name": "gland"}}
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    (tmp_path / "polygons").mkdir()
    (tmp_path / "polygons" / "A.GeoJSON").write_text(json.dumps([feature]))
    return folder


def test_annotations_are_drawn_and_the_copy_is_verified(tmp_path):
    folder = make(tmp_path)
    words = ("tile", folder, "--out", tmp_path / "s.zarr", "--annotations", tmp_path / "polygons")
    result = run(*words, "--verify", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["annotations"]["objects"] == {"a": 1}
    assert summary["verified"][0]["pixels"] == 100 * 130
    assert "all the same" in result.stderr
    assert open_collection(tmp_path / "s.zarr")["a"].label_names() == ("annotations", "tissue")


def test_a_bad_slide_does_not_keep_the_others_from_labels_and_verification(tmp_path):
    folder = make(tmp_path)
    (folder / "bad.tif").write_text("not a slide")
    words = ("tile", folder, "--out", tmp_path / "s.zarr", "--annotations", tmp_path / "polygons")
    result = run(*words, "--verify")
    assert result.exit_code == 1
    assert "1 slide tiled" in result.stdout
    assert "all the same" in result.stdout
    assert "error: 1 of 2 slides failed, 1 done" in result.stderr
    assert result.stderr.count("bad.tif: is not") == 1
    assert open_collection(tmp_path / "s.zarr")["a"].label_names() == ("annotations", "tissue")


def test_one_of_several_images_and_folders_that_tell_slides_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with tifffile.TiffWriter(tmp_path / name / "s.tif") as tiff:
            for width in (64, 80):
                tiff.write(np.zeros((48, width, 3), np.uint8), tile=(16, 16), metadata=None)
    out = tmp_path / "s.zarr"
    refused = run("tile", tmp_path, "--names", "path", "--out", out)
    assert refused.exit_code == 1
    assert "choose one with --scene" in refused.stderr
    words = ("tile", tmp_path / "a", tmp_path / "b", "--scene", "1", "--out", out)
    assert "two slides named 's'" in run(*words).stderr
    result = run("tile", tmp_path, "--scene", "1", "--names", "path", "--verify", "--out", out)
    assert result.exit_code == 0, result.output
    assert open_collection(out).names() == ("a_s", "b_s")
    assert open_collection(out)["a_s"].pyramid.extent.width == 80
    shown = run("info", tmp_path / "a" / "s.tif", "--scene", "2")
    assert "64 x 48" in shown.stdout


def test_a_polygon_file_that_cannot_be_read_is_reported_after_the_rest(tmp_path):
    folder = make(tmp_path)
    (folder / "bad.tif").write_text("not a slide")
    (tmp_path / "polygons" / "A.GeoJSON").write_text("{")
    words = ("tile", folder, "--out", tmp_path / "s.zarr", "--annotations", tmp_path / "polygons")
    result = run(*words)
    assert result.exit_code == 1
    assert "error: 2 of 2 slides failed, 0 done" in result.stderr
    assert "A.GeoJSON" in result.stderr
    assert "bad.tif: is not" in result.stderr


def test_info_says_what_tile_will_do(tmp_path):
    result = run("info", make(tmp_path) / "a.tif", "--json")
    assert result.exit_code == 0, result.output
    assert "verbatim" in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["status"] == "done"


def test_info_lists_the_good_ones_next_to_a_bad_one(tmp_path):
    make(tmp_path)
    (tmp_path / "bad.tif").write_text("not a slide")
    result = run("info", tmp_path)
    assert result.exit_code == 1
    assert "verbatim" in result.output
    assert "bad.tif: is not" in result.output
