"""How slides are called, and that one clash of names stops nothing else."""

import numpy as np
import pytest

from tests.makers.coordinates import write_coordinate_tiff
from tests.makers.omezarrs import write_ome_zarr
from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent
from wsi_seg.ingest.names import name_slides
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import verify_slides
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection

EXTENT = Extent(height=40, width=50)


def write(*paths):
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        extent = Extent(height=EXTENT.height + number, width=EXTENT.width)
        write_coordinate_tiff(path, extents=[extent], tile_px=16)


def test_the_rest_is_tiled(tmp_path):
    folder = tmp_path / "slides"
    write(folder / "a" / "s.tif", folder / "b" / "s.tif", folder / "t.tif", folder / "c" / "s.svs")
    report = tile_slides([folder], tmp_path / "s.zarr", progress=Silent())
    assert [slide.name for slide in report.slides] == ["t"]
    (reason,) = report.failures.values()
    assert "got 3 slides named 's'" in reason
    assert all(str(folder / name) in reason for name in ("a/s.tif", "b/s.tif", "c/s.svs"))
    assert "--names path" in reason
    assert open_collection(tmp_path / "s.zarr").names() == ("t",)


def test_folders_tell_slides_apart(tmp_path):
    folder, out = tmp_path / "slides", tmp_path / "s.zarr"
    write(folder / "a" / "x" / "s.tif", folder / "b" / "s.tif", folder / "t.tif")
    for _ in range(2):
        report = tile_slides(name_slides([folder], "path"), out, progress=Silent())
        assert not report.failures
    names = ("a_x_s", "b_s", "t")
    assert open_collection(out).names() == names
    heights = [open_collection(out)[name].pyramid.extent.height for name in names]
    assert heights == [40, 41, 42]
    checked = verify_slides(name_slides([folder], "path"), open_collection(out), progress=Silent())
    assert [one.slide for one in checked.slides] == list(names)


def test_files_that_are_named_have_their_own_folder(tmp_path):
    write(tmp_path / "a" / "s.tif", tmp_path / "b" / "s.tif")
    files = [tmp_path / "a" / "s.tif", tmp_path / "b" / "s.tif"]
    assert list(name_slides(files, "path").names.values()) == ["a_s", "b_s"]
    assert list(name_slides(files[:1]).names.values()) == ["s"]


def test_folders_that_join_to_one_name_clash_as_well(tmp_path):
    write(tmp_path / "a" / "b_s.tif", tmp_path / "a_b" / "s.tif", tmp_path / "t.tif")
    found = name_slides([tmp_path], "path")
    assert list(found.names.values()) == ["t"]
    assert "two slides named 'a_b_s'" in str(found.clashes["a_b_s"])


def test_a_folder_that_is_a_slide_itself(tmp_path):
    write_ome_zarr(tmp_path / "in" / "a.zarr", [np.zeros((40, 40, 3), np.uint8)])
    assert list(name_slides([tmp_path], "path").names.values()) == ["in_a"]
    assert list(name_slides([tmp_path / "in" / "a.zarr"], "path").names.values()) == ["a"]


def test_a_name_that_no_store_can_have(tmp_path):
    write(tmp_path / "zarr.json.tif", tmp_path / "t.tif")
    report = tile_slides([tmp_path], tmp_path / "s.zarr", progress=Silent())
    assert [slide.name for slide in report.slides] == ["t"]
    assert "which no store can have" in report.failures["zarr.json"]
    with pytest.raises(SlideError, match="which no store can have"):
        tile_slides([tmp_path / "zarr.json.tif"], tmp_path / "n.zarr", progress=Silent())


def test_other_files_are_listed_by_kind(tmp_path, caplog):
    write(tmp_path / "t.tif")
    for name in ("a.qptiff", "b.QPTIFF", "in/c.qptiff", "d.geojson", "e.nii.txt", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    name_slides([tmp_path])
    assert "1 .geojson, 3 .qptiff, 1 .txt, 1 without a suffix" in caplog.text
    (tmp_path / "t.tif").unlink()
    with pytest.raises(SlideError, match=r"holds no slide, but .*3 \.qptiff"):
        name_slides([tmp_path])


def test_files_that_belong_to_a_slide_are_not_listed(tmp_path, caplog):
    for name in ("a.mrxs", "a/Data0001.dat", "a/Slidedat.ini"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert list(name_slides([tmp_path]).names.values()) == ["a"]
    assert not caplog.text
