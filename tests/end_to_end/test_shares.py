"""Processes that share a verb leave the bytes of one, also if one is killed and repeated."""

import json
import shutil
import sys
import time

import numpy as np
import pytest
import shapely

from tests.commands import run as run_here
from tests.commands import run_json
from tests.forks import begin_verb
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.classes import ClassTable
from wsi_seg.cli.app import main
from wsi_seg.geometry import Extent
from wsi_seg.store import LabelInfo, PredictionInfo, create_collection
from wsi_seg.testing.stores import digests, write_image

SIZES = {"a": (400, 300), "b": (700, 500), "c": (90, 120), "d": (300, 300), "e": (250, 640)}
CLASSES = ClassTable.named(["gland"])


def one(words):
    child = begin_verb(*words)
    child.join()
    return child.exitcode


def share(words, folder, *, killed=False):
    """Run three shards at once; kill one when something is done, and repeat it."""
    shards = [[*words, "--shard", f"{number}/3"] for number in (1, 2, 3)]
    children = [begin_verb(*shard) for shard in shards]
    if killed:
        while children[0].exitcode is None and not list(folder.rglob("turns/*/*.result")):
            time.sleep(0.002)
        children[0].kill()
        children[0].join()
        children[0] = begin_verb(*shards[0])
    for child in children:
        child.join()
    return [child.exitcode for child in children]


def content(folder):
    return {
        name: digest
        for name, digest in digests(folder).items()
        if "/turns/" not in name and ".exported" not in name
    }


def objects(number):
    """Where things are on a slide, in level-0 pixels, and what is found there."""
    return [shapely.box(x, 10, x + 30 + number, 60) for x in range(10, 80, 50)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Slides, annotations of them, and what was predicted."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "slides").mkdir()
    (folder / "polygons").mkdir()
    create_collection(folder / "pred.zarr")
    for number, (name, (height, width)) in enumerate(SIZES.items()):
        extents = (Extent(height=height, width=width),)
        write_coordinate_tiff(folder / "slides" / f"{name}.tif", extents=extents, codec="zstd")
        features = [
            {
                "type": "Feature",
                "geometry": shapely.geometry.mapping(shape),
                "properties": {"classification": {"name": "gland"}},
            }
            for shape in objects(number)
        ]
        (folder / "polygons" / f"{name}.geojson").write_text(
            json.dumps({"type": "FeatureCollection", "features": features})
        )
        found = np.zeros((height, width), np.uint8)
        found[12:60, 10 : 42 + number] = 1
        group = folder / "pred.zarr" / name
        about = PredictionInfo(slide=name, classes=CLASSES, slide_extent=(height, width))
        write_image(group, found[..., None] * np.uint8(200), about.to_json(), mpp=None)
        label = LabelInfo(classes=CLASSES, slide_extent=(height, width))
        write_image(group / "labels/prediction", found, label.to_json(), mpp=None)
    assert one(["tile", folder / "slides", "--out", folder / "store.zarr"]) == 0
    shutil.copytree(folder / "store.zarr", folder / "plain.zarr")
    assert one(["annotate", folder / "store.zarr", folder / "polygons"]) == 0
    return folder


@pytest.mark.parametrize("killed", [False, True])
def test_tile(work, tmp_path, killed):
    out = tmp_path / "store.zarr"
    assert share(["tile", work / "slides", "--out", out], out, killed=killed) == [0, 0, 0]
    assert content(out) == content(work / "plain.zarr")
    assert one(["tile", work / "slides", "--out", out]) == 0


@pytest.mark.parametrize("killed", [False, True])
def test_annotate(work, tmp_path, killed):
    store = tmp_path / "store.zarr"
    shutil.copytree(work / "plain.zarr", store)
    words = ["annotate", store, work / "polygons"]
    assert share(words, store, killed=killed) == [0, 0, 0]
    assert content(store) == content(work / "store.zarr")


@pytest.mark.parametrize("killed", [False, True])
def test_evaluate(work, tmp_path, killed):
    words = ["--truth", work / "store.zarr", "--threshold", 0.5, "--maps"]
    for name in ("calm", "many"):
        shutil.copytree(work / "pred.zarr", tmp_path / f"{name}.zarr")
    calm, many = tmp_path / "calm.zarr", tmp_path / "many.zarr"
    assert one(["evaluate", calm, *words, "--out", tmp_path / "calm"]) == 0
    shared = ["evaluate", many, *words, "--out", tmp_path / "many"]
    assert share(shared, many, killed=killed) == [0, 0, 0]
    assert content(tmp_path / "many") == content(tmp_path / "calm")
    assert content(many) == content(calm)
    scores = json.loads((tmp_path / "many/scores.json").read_text())
    assert {row["slide"] for row in scores["slides"]} == set(SIZES)


@pytest.mark.parametrize("killed", [False, True])
def test_export(work, tmp_path, killed):
    def targets(folder):
        return [
            "--slides", work / "store.zarr", "--geojson", folder / "g", "--table", folder / "t",
            "--png", folder / "p", "--rle", folder / "r.csv", "--coco", folder / "c.json",
        ]  # fmt: skip

    many = tmp_path / "many.zarr"
    shutil.copytree(work / "pred.zarr", many)
    assert one(["export", work / "pred.zarr", *targets(tmp_path / "calm")]) == 0
    words = ["export", many, *targets(tmp_path / "many")]
    assert share(words, many, killed=killed) == [0, 0, 0]
    tables = [name for name in content(tmp_path / "calm") if not name.endswith(".parquet")]
    found, expected = content(tmp_path / "many"), content(tmp_path / "calm")
    assert set(found) == set(expected)
    assert [found[name] for name in tables] == [expected[name] for name in tables]


@pytest.mark.parametrize("option", ["--bbox", "--inside"])
def test_a_part_of_slides(work, tmp_path, option):
    part = [option, "20,10,60,40" if option == "--bbox" else work / "polygons/a.geojson"]
    calm, many = tmp_path / "calm", tmp_path / "many"
    for folder in (calm, many):
        shutil.copytree(work / "pred.zarr", folder / "pred.zarr")

    def commands(folder):
        pred = folder / "pred.zarr"
        return [
            (folder / "s.zarr", ["tile", work / "slides", "--out", folder / "s.zarr", *part]),
            (pred, ["evaluate", pred, "--truth", work / "store.zarr", "--threshold", 0.5,
                    "--out", folder / "scores", *part]),
            (pred, ["export", pred, "--geojson", folder / "g", "--rle", folder / "r.csv", *part]),
        ]  # fmt: skip

    for _, words in commands(calm):
        assert one(words) == 0
    for folder, words in commands(many):
        assert share(words, folder) == [0, 0, 0]
    assert content(many) == content(calm)
    assert content(calm / "s.zarr") != content(work / "plain.zarr")


def test_a_slide_that_fails_fails_its_own_share_and_is_in_the_scores(work, tmp_path):
    store, out = tmp_path / "store.zarr", tmp_path / "scores"
    many = tmp_path / "many.zarr"
    shutil.copytree(work / "store.zarr", store)
    shutil.copytree(work / "pred.zarr", many)
    shutil.rmtree(store / "b")
    words = ["evaluate", many, "--truth", store, "--out", out]
    assert share(words, many).count(1) >= 1
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores["failures"]) == ["b"]
    shutil.copytree(work / "store.zarr" / "b", store / "b")
    assert share(words, many) == [0, 0, 0]
    scores = json.loads((out / "scores.json").read_text())
    assert not scores["failures"]
    assert len(scores["slides"]) == len(SIZES)


def test_status_of_a_command_that_is_shared(work, tmp_path):
    out = tmp_path / "store.zarr"
    words = ["tile", work / "slides", "--out", out]
    assert one([*words, "--shard", "2/2"]) == 0
    found = run_json("status", out)
    (tiling,) = found["commands"]
    states = {slide["slide"]: slide["state"] for slide in tiling["slides"]}
    assert (tiling["verb"], set(states), found["complete"]) == ("tile", set(SIZES), False)
    there = {name for name in SIZES if (out / name / "zarr.json").is_file()}
    assert {name for name, state in states.items() if state == "done"} == there
    assert {name for name, state in states.items() if state == "waiting"} == set(SIZES) - there
    assert 0 < tiling["work_done"] < tiling["work"]
    assert one([*words, "--shard", "1/2"]) == 0
    assert run_json("status", out)["complete"]
    watched = run_here("status", out, "--watch")
    assert "tile: 5 slides: 5 done, 0 running, 0 stopped, 0 waiting, 0 failed" in watched.stdout


def test_status_of_a_folder_of_scores_names_the_collections(work):
    (work / "scores").mkdir()
    refused = run_here("status", work / "scores")
    assert refused.exit_code == 1
    assert f"there is no collection at {work}/scores" in refused.stderr
    assert f"next to this path: {work}/plain.zarr, {work}/pred.zarr" in refused.stderr


def test_what_shards_refuse(work, tmp_path, capsys, monkeypatch):
    for words, said in {
        ("tile", work / "slides", "--out", tmp_path / "s", "--overwrite"): "choose another --out",
        ("tile", work / "slides", "--annotations", work / "polygons"): "after all slides are tiled",
        ("evaluate", work / "pred.zarr", "--truth", work / "store.zarr"): "expected a folder",
    }.items():
        monkeypatch.setattr(sys, "argv", ["wsi-seg", *map(str, words), "--shard", "1/2"])
        with pytest.raises(SystemExit):
            main()
        assert said in " ".join(capsys.readouterr().err.split())
