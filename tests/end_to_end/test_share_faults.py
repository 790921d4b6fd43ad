"""Shards whose slides fail, vanish or fill the disk: others are done, a repetition completes."""

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import struct

import numpy as np
import pytest
import shapely

from tests.commands import run
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.classes import ClassTable
from wsi_seg.evaluation import share as evaluation
from wsi_seg.exporting import run as exporting
from wsi_seg.geometry import Extent
from wsi_seg.masks import annotate as drawing
from wsi_seg.store import LabelInfo, PredictionInfo, create_collection
from wsi_seg.testing.stores import digests, write_image

SIZES = {"a": (200, 300), "b": (400, 300), "c": (90, 120)}
CLASSES = ClassTable.named(["gland"])
MODULES = {"annotate": drawing, "evaluate": evaluation, "export": exporting}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Slides, annotations of them, and what was predicted."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("slides", "polygons"):
        (folder / name).mkdir()
    create_collection(folder / "pred.zarr")
    for name, size in SIZES.items():
        extents = (Extent(height=size[0], width=size[1]),)
        write_coordinate_tiff(folder / "slides" / f"{name}.tif", extents=extents, codec="zstd")
        feature = {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shapely.box(10, 10, 60, 60)),
            "properties": {"classification": {"name": "gland"}},
        }
        (folder / "polygons" / f"{name}.geojson").write_text(
            json.dumps({"type": "FeatureCollection", "features": [feature]})
        )
        found = np.zeros(size, np.uint8)
        found[12:60, 10:50] = 1
        group = folder / "pred.zarr" / name
        about = PredictionInfo(slide=name, classes=CLASSES, slide_extent=size)
        write_image(group, found[..., None] * np.uint8(200), about.to_json(), mpp=None)
        label = LabelInfo(classes=CLASSES, slide_extent=size)
        write_image(group / "labels/prediction", found, label.to_json(), mpp=None)
    assert run("tile", folder / "slides", "--out", folder / "plain.zarr").exit_code == 0
    shutil.copytree(folder / "plain.zarr", folder / "store.zarr")
    assert run("annotate", folder / "store.zarr", folder / "polygons").exit_code == 0
    return folder


@pytest.fixture(params=["annotate", "evaluate", "export"])
def verb(request):
    return request.param


def collection_of(work, verb, folder):
    """A copy of the collection that a verb works on."""
    name = "plain.zarr" if verb == "annotate" else "pred.zarr"
    return shutil.copytree(work / name, folder / name)


def words_of(work, verb, folder):
    if verb == "annotate":
        return (verb, folder / "plain.zarr", work / "polygons")
    pred, out = folder / "pred.zarr", folder / "out"
    if verb == "evaluate":
        truth = ("--truth", work / "store.zarr", "--threshold", 0.5, "--maps")
        return (verb, pred, *truth, "--out", out)
    return (verb, pred, "--geojson", out / "g", "--coco", out / "c.json", "--threshold", 0.5)


def content(folder):
    return {
        name: digest
        for name, digest in digests(folder).items()
        if "/turns/" not in name and ".exported" not in name
    }


def shards(words, *, exit_codes):
    done = [run(*words, "--shard", f"{number}/2") for number in (1, 2)]
    assert [one.exit_code for one in done] == exit_codes, [one.output for one in done]
    return done


@pytest.fixture
def calm(work, verb, tmp_path):
    """What a verb makes without a fault."""
    folder = tmp_path / "calm"
    folder.mkdir()
    collection_of(work, verb, folder)
    assert run(*words_of(work, verb, folder)).exit_code == 0
    return content(folder)


def test_a_store_that_is_removed_meanwhile_fails_alone(work, verb, calm, tmp_path, monkeypatch):
    folder = tmp_path / "faulty"
    folder.mkdir()
    stores, words = collection_of(work, verb, folder), words_of(work, verb, folder)
    taking_turns = MODULES[verb].taking_turns

    def after_a_removal(*arguments, **options):
        (stores / "b").rename(tmp_path / "b")
        return taking_turns(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MODULES[verb], "taking_turns", after_a_removal)
        first = run(*words, "--shard", "1/2")
    assert first.exit_code == 1
    assert "1 of 1 slide failed, 0 done" in first.output
    assert "got slide 'b'; it has: a, c" in first.output
    (tmp_path / "b").rename(stores / "b")
    status = run("status", stores).stdout
    assert f"{verb}: 3 slides: 0 done, 0 running, 0 stopped, 2 waiting, 1 failed" in status
    shards(words, exit_codes=[0, 0])
    assert content(folder) == calm


def test_a_full_disk_fails_slides_and_a_repetition_completes(work, verb, calm, tmp_path):
    folder = tmp_path / "faulty"
    folder.mkdir()
    collection_of(work, verb, folder)
    words = words_of(work, verb, folder)
    said = tmp_path / "said"

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))

    assert in_child((*words, "--shard", "1/2"), said, before=fill) == 1
    assert "File too large; make room, then repeat the command" in said.read_text()
    shards(words, exit_codes=[0, 0])
    assert content(folder) == calm
    assert not [path for path in folder.rglob("*") if path.suffix in (".partial", ".scratch")]


def test_a_damaged_prediction_fails_alone(work, tmp_path):
    folder = tmp_path / "faulty"
    folder.mkdir()
    stores = collection_of(work, "export", folder)
    damaged = stores / "b/labels/prediction/0/c"
    damaged.rename(tmp_path / "kept")
    shutil.copytree(tmp_path / "kept", damaged)
    for file in damaged.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    for words in (
        ("evaluate", stores, "--truth", work / "store.zarr", "--out", folder / "scores"),
        ("export", stores, "--geojson", folder / "g"),
    ):
        done = shards(words, exit_codes=[1, 1])
        assert all("b\t" in one.output for one in done)
        assert "of 3 slides failed, 2 done" in done[-1].output
    shutil.rmtree(damaged)
    (tmp_path / "kept").rename(damaged)
    shards(words, exit_codes=[0, 0])
    assert sorted(path.stem for path in (folder / "g").glob("*.geojson")) == ["a", "b", "c"]


def test_a_damaged_slide_fails_in_its_own_shard(work, tmp_path):
    slides = shutil.copytree(work / "slides", tmp_path / "slides")
    whole = (slides / "b.tif").read_bytes()
    (slides / "b.tif").write_bytes(whole[:2000])
    words = ("tile", slides, "--out", tmp_path / "s.zarr")
    done = [run(*words, "--shard", f"{number}/2") for number in (1, 2)]
    failed = [one for one in done if one.exit_code == 1]
    assert len(failed) == 1
    assert f"b\t{slides}/b.tif: " in failed[0].output
    assert "the file is damaged" in failed[0].output
    (slides / "b.tif").write_bytes(whole)
    shards(words, exit_codes=[0, 0])
    assert content(tmp_path / "s.zarr") == content(work / "plain.zarr")


def in_child(words, said, *, before):
    """Run a command in a child process after a preparation; return its exit code."""
    if not (child := os.fork()):
        before()
        done = run(*words)
        said.write_text(f"{done.output[-800:]} {done.exception!r}")
        os._exit(done.exit_code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def obey_permissions():
    """Give up what lets root write anywhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = struct.pack("II", 0x20080522, 0)
    assert os.geteuid() or libc.capset(version, bytes(24)) == 0


def test_predictions_that_can_only_be_read(work, tmp_path):
    stores = collection_of(work, "export", tmp_path)
    folders = [stores, *(path for path in stores.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    said, found = tmp_path / "said", tmp_path / "found"
    try:
        words = ("export", stores, "--geojson", found)
        assert in_child(words, said, before=obey_permissions) == 0, said.read_text()
        assert in_child((*words, "--shard", "1/2"), said, before=obey_permissions) == 1
        assert f"cannot write {stores}/.wsi_seg/run: Permission denied; choose" in said.read_text()
        others = ("export", stores, "--geojson", tmp_path / "other", "--threshold", 0.5)
        assert in_child(others, said, before=obey_permissions) == 1
        assert "a\tcannot write" in said.read_text()
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert sorted(path.stem for path in found.glob("*.geojson")) == ["a", "b", "c"]


@pytest.mark.parametrize("closed", [".wsi_seg", "a"])
@pytest.mark.parametrize("verb", ["status", "export"])
def test_a_folder_that_cannot_be_read_is_named(work, closed, verb, tmp_path):
    stores, said = collection_of(work, "export", tmp_path), tmp_path / "said"
    words = (verb, stores) if verb == "status" else (verb, stores, "--geojson", tmp_path / "g")
    (stores / ".wsi_seg/partial").mkdir()
    (stores / closed).chmod(0)
    try:
        code = in_child(words, said, before=obey_permissions)
    finally:
        (stores / closed).chmod(0o755)
    assert code == 1
    assert re.search(rf"cannot (access|write) {stores / closed}/\S*: Perm.*; ", said.read_text())
