"""Slides from an object store, and stores in one: the bytes of a folder, two slides at a time."""

import shutil
from pathlib import Path

import pytest

import wsi_seg.files.stage as stage_module
from tests.makers.coordinates import write_coordinate_tiff
from tests.object_store import fetched, in_bucket, object_store, sent
from wsi_seg.errors import AddressError, BatchError, SlideError, WsiSegError
from wsi_seg.files.object_path import ObjectPath
from wsi_seg.geometry import Extent
from wsi_seg.ingest import job as job_module
from wsi_seg.ingest import run as run_module
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.testing.stores import digests

ROOT = in_bucket()
NAMES = ("a.tif", "b.svs", "c.tif")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Folder with slides, and the collection of them."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "in").mkdir()
    for number, name in enumerate(NAMES):
        extent = Extent(height=700 + 100 * number, width=900)
        write_coordinate_tiff(folder / "in" / name, extents=[extent], codec="jpeg", tile_px=64)
    tile_slides([folder / "in"], folder / "s.zarr", progress=Silent())
    return folder


@pytest.fixture
def gate(local):
    with object_store() as gate:
        sent(local / "in", ROOT / "in")
        (ROOT / "in" / "notes.txt").write_bytes(b"")
        yield gate


def test_from_a_bucket_and_to_a_bucket_by_a_folder_that_is_empty_afterwards(local, gate, tmp_path):
    report = tile_slides([ROOT / "in"], ROOT / "s.zarr", stage=tmp_path / "s", progress=Silent())
    assert [slide.name for slide in report.slides] == ["a", "b", "c"]
    assert not report.failures
    assert fetched(ROOT / "s.zarr", tmp_path / "got") == digests(local / "s.zarr")
    assert open_collection(ROOT / "s.zarr").names() == ("a", "b", "c")
    assert list((tmp_path / "s").iterdir()) == []


def test_a_repeated_command_fetches_nothing(local, gate, tmp_path):
    out = tmp_path / "s.zarr"
    tile_slides([ROOT / "in"], out, progress=Silent())
    gate.seen.clear()
    report = tile_slides([ROOT / "in"], out, progress=Silent())
    assert [slide.skipped for slide in report.slides] == [True] * 3
    gets = [path for method, path in gate.seen if method == "GET" and path.endswith(NAMES)]
    assert len(gets) == 2 * len(NAMES)  # both ends of each
    (ROOT / "in" / "a.tif").write_bytes((local / "in" / "c.tif").read_bytes())
    again = tile_slides([ROOT / "in"], out, progress=Silent())
    assert "differs in source" in again.failures["a"]


def test_at_most_two_slides_are_there_at_a_time(gate, tmp_path, monkeypatch):
    fetch, most = stage_module.fetch_one, 0

    def counted(remote, file):
        nonlocal most
        most = max(most, len(list((tmp_path / "s").iterdir())))
        return fetch(remote, file)

    monkeypatch.setattr(run_module, "fetch_one", counted)
    tile_slides(
        [ROOT / "in"], tmp_path / "o.zarr", workers=3, stage=tmp_path / "s", progress=Silent()
    )
    assert most == 2


def test_what_a_kill_has_left_in_the_folder_is_removed(gate, tmp_path):
    left = tmp_path / "s" / "wsi-seg-stage-left"
    left.mkdir(parents=True)
    (left / "a.tif").write_bytes(b"half")
    (tmp_path / "s" / "mine.tif").write_bytes(b"mine")
    tile_slides([ROOT / "in"], tmp_path / "o.zarr", stage=tmp_path / "s", progress=Silent())
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["mine.tif"]


def test_a_killed_run_to_a_bucket_continues(local, gate, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    write, left = job_module.SlideJob._write, 2

    def dying(self, unit):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return write(self, unit)

    with monkeypatch.context() as patch:
        patch.setattr(job_module.SlideJob, "_write", dying)
        with pytest.raises(Killed):
            tile_slides([ROOT / "in"], ROOT / "s.zarr", workers=1, progress=Silent())
    assert not open_collection(ROOT / "s.zarr").names()
    gate.seen.clear()
    tile_slides([ROOT / "in"], ROOT / "s.zarr", progress=Silent())
    assert fetched(ROOT / "s.zarr", tmp_path / "got") == digests(local / "s.zarr")
    shutil.rmtree(tmp_path / "got")


def test_a_slide_that_changes_meanwhile_is_an_error(gate, tmp_path):
    slide = ROOT / "in" / "a.tif"
    other = slide.read_bytes()[::-1]

    def rule(method, path):
        if method == "GET" and path.endswith("a.tif"):
            gate.rule = lambda _method, _path: None
            slide.write_bytes(other)

    gate.rule = rule
    with pytest.raises(AddressError, match="changed while it was downloaded"):
        tile_slides([slide], tmp_path / "o.zarr", progress=Silent())


def test_no_room_is_said_before_anything_is_fetched(gate, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(
        BatchError, match=r"only 0.0 GB are free in\s.*; give another folder with --stage"
    ):
        tile_slides([ROOT / "in"], tmp_path / "o.zarr", progress=Silent())


def test_kinds_of_many_files_are_refused(gate):
    for file in ("x.mrxs", "x/Data0.dat", "series/1.dcm"):
        (ROOT / "other" / file).write_bytes(b"1")
    with pytest.raises(SlideError, match=r"copy slides of many files .*DICOM"):
        tile_slides([ROOT / "other"], Path("never.zarr"), progress=Silent())
    with pytest.raises(WsiSegError, match=r"there is no such object|holds no single-file slide"):
        tile_slides([ROOT / "nowhere"], Path("never.zarr"), progress=Silent())


@pytest.mark.parametrize("source", ["bucket", "folder"])
def test_a_store_killed_while_it_took_its_name_takes_it_when_repeated(
    source, local, gate, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    copy, slides = ObjectPath.copy_to, [ROOT / "in" if source == "bucket" else local / "in"]

    def dying(self, target):
        if target == ROOT / "s.zarr" / "b" / "zarr.json":
            raise Killed
        copy(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "copy_to", dying)
        with pytest.raises(Killed):
            tile_slides(slides, ROOT / "s.zarr", workers=1, progress=Silent())
    assert "b" not in open_collection(ROOT / "s.zarr").names()
    gate.seen.clear()
    tile_slides(slides, ROOT / "s.zarr", progress=Silent())
    shards = [path for method, path in gate.seen if method == "PUT" and "/partial/b/0/c/" in path]
    assert not shards
    fetches = [path for method, path in gate.seen if method == "GET" and path.endswith("in/b.svs")]
    assert len(fetches) == (2 if source == "bucket" else 0)  # both ends
    assert fetched(ROOT / "s.zarr", tmp_path / "got") == digests(local / "s.zarr")
    assert not [path for path in (ROOT / "s.zarr").sizes() if "/partial/" in str(path)]
