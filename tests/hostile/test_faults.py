"""Kills, full disks, unreadable sectors and wrong clocks: a rerun gives the undisturbed result."""

import errno
import os
import shutil
import time

import numpy as np
import pytest
import torch

from tests.cards import make_card
from tests.makers.coordinates import write_coordinate_tiff
from tests.makers.painted import NAME, paint_prediction
from wsi_seg.errors import BatchError
from wsi_seg.geometry import Extent
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.ingest.run import tile_slides
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, shards, shared_cache
from wsi_seg.testing.stores import digests
from wsi_seg.testing.tissue import CLASSES

ENCODER = "tu-mobilenetv3_small_050"
RECIPE = f"""
classes: [{{name: gland}}]
data: {{stores: [../good/store.zarr], label: annotations, validation: 0}}
mpp: 4.0
patch_px: 32
model: {{encoder: {ENCODER}, weights: null}}
train: {{epochs: 3, batch_size: 4, workers: 0, precision: fp32, save_minutes: 0.0}}
sampling: {{patches_per_epoch: 16}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder ``good`` with a slide, its store and a prediction; a model and a recipe."""
    folder = tmp_path_factory.mktemp("faults")
    for name in ("good", "out"):
        (folder / name).mkdir()
    paint_prediction(folder / "good")
    torch.manual_seed(0)
    card = make_card(classes=CLASSES, mpp=2.0)
    save_checkpoint(folder / "m.safetensors", build_network(card.spec), card)
    (folder / "good" / "recipe.yaml").write_text(RECIPE)
    # export holds the prediction that it reads, and may keep a decision in it
    shutil.copytree(folder / "good" / "pred.zarr", folder / "out" / "pred.zarr")
    return folder


def words_of(verb, out):
    return {
        "tile": ("tile", f"good/{NAME}.tif", "--codec", "zstd", "--out", out),
        "infer": ("infer", "good/store.zarr", "--checkpoint", "m.safetensors", "--out", out,
                  "--precision", "fp32", "--batch", "4"),
        "train": ("train", "good/recipe.yaml", "--out", out),
        "export": ("export", "out/pred.zarr", "--geojson", out),
    }[verb]  # fmt: skip


def result_of(verb, out):
    if verb == "train":
        return {"best.safetensors": (out / "best.safetensors").read_bytes()}
    return digests(out)


def calm(network_verbs, folder, verb):
    out = folder / "out" / f"calm-{verb}"
    if not out.exists():
        done = network_verbs(*words_of(verb, out), folder=folder)
        assert done.code == 0, f"{done}"
        folder.joinpath(f"seconds-{verb}").write_text(str(done.seconds))
    return result_of(verb, out), float(folder.joinpath(f"seconds-{verb}").read_text())


def require_taken_up(network_verbs, folder, verb, out, expected):
    again = network_verbs(*words_of(verb, out), folder=folder)
    assert again.code == 0, f"{again}"
    assert result_of(verb, out) == expected
    if verb in {"tile", "infer"}:
        assert network_verbs("verify", out, folder=folder).code == 0


@pytest.mark.torture
@pytest.mark.parametrize("verb", ["tile", "infer", "train", "export"])
def test_killed_at_twenty_moments(network_verbs, folder, verb):
    expected, seconds = calm(network_verbs, folder, verb)
    killed = 0
    for turn, share in enumerate(np.random.default_rng(7).uniform(0, 1, 20)):
        out = folder / "out" / f"killed-{verb}-{turn}"
        cut = network_verbs(*words_of(verb, out), folder=folder, seconds=share * seconds)
        if cut.code == -9:
            killed += 1
        else:  # the machine was busier before, so later kills come sooner
            seconds = min(seconds, cut.seconds)
        require_taken_up(network_verbs, folder, verb, out, expected)
    assert killed > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "file_bytes"),
    [
        ("tile", 40_000),
        ("infer", 3_000),
        pytest.param("train", 200_000, marks=pytest.mark.torture),
        ("export", 999),
    ],
)
def test_a_full_disk_is_said_and_nothing_is_lost(network_verbs, folder, verb, file_bytes):
    expected, _ = calm(network_verbs, folder, verb)
    out = folder / "out" / f"full-{verb}"
    full = network_verbs(*words_of(verb, out), folder=folder, file_bytes=file_bytes)
    full.require_refused("cannot write", "File too large")
    require_taken_up(network_verbs, folder, verb, out, expected)


def test_a_sector_that_cannot_be_read_costs_its_tiles_alone(folder, tmp_path, monkeypatch):
    store = open_collection(folder / "good" / "store.zarr")
    options = InferOptions(precision="fp32", batch=4, device="cpu", overlap=0.0)
    infer(store, folder / "m.safetensors", tmp_path / "calm", options, progress=Silent())
    read = shards.Shard._span
    broken: list[str] = []

    def torn(shard, offset, nbytes):
        path = shard.path
        if offset == 0 and "labels" not in path.parts and (not broken or path in broken):
            broken.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(shard, offset, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(shards.Shard, "_span", torn)
        shared_cache.cache_clear()
        report = infer(
            store, folder / "m.safetensors", tmp_path / "torn", options, progress=Silent()
        )
    shared_cache.cache_clear()
    (slide,) = report.slides
    lost = {(y, x) for y, x, reason in slide.quarantined if "Input/output error" in reason}
    assert 0 < len(lost) < slide.tiles
    with pytest.raises(BatchError, match="Input/output error"):
        report.require_whole()


def test_a_slide_on_a_bad_sector_fails_and_the_other_is_done(tmp_path, monkeypatch):
    for name in "ab":
        write_coordinate_tiff(tmp_path / f"{name}.tif", extents=[Extent(height=300, width=200)])
    bad = (tmp_path / "b.tif").stat().st_ino
    read = os.pread

    def pread(descriptor, size, offset):
        if os.fstat(descriptor).st_ino == bad and offset > 4000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size, offset)

    slides = [tmp_path / "a.tif", tmp_path / "b.tif"]
    monkeypatch.setattr(os, "pread", pread)
    report = tile_slides(slides, tmp_path / "s.zarr", progress=Silent())
    with pytest.raises(BatchError, match="Input/output") as caught:
        report.require_whole()
    monkeypatch.undo()
    assert list(caught.value.failures) == ["b"]
    assert open_collection(tmp_path / "s.zarr").names() == ("a",)
    tile_slides(slides, tmp_path / "s.zarr", progress=Silent()).require_whole()
    tile_slides(slides, tmp_path / "calm.zarr", progress=Silent()).require_whole()
    assert digests(tmp_path / "s.zarr") == digests(tmp_path / "calm.zarr")


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=900, width=700)], codec="zstd")
    tile_slides([tmp_path / "a.tif"], tmp_path / "calm.zarr", progress=Silent())
    jumps = iter([4e9, 0.0, 1e9, -5.0] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "perf_counter", lambda: next(jumps))

    def stop(store, _):
        for path in store.path.rglob("*"):
            os.utime(path, (0, 4e9))
        raise BatchError({}, 0)

    with monkeypatch.context() as patch:
        patch.setattr("wsi_seg.ingest.job.write_mask_of", stop)
        with pytest.raises(BatchError):
            tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", progress=Silent())
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", progress=Silent())
    assert digests(tmp_path / "s.zarr") == digests(tmp_path / "calm.zarr")
