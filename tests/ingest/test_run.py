"""Tiling: verbatim equals the slide, any kill resumes to the same bytes, faults stay apart."""

import dataclasses
import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.errors import (
    BatchError,
    ConfigError,
    OutputError,
    SlideError,
    StoreError,
    UnsupportedSlideError,
    WsiSegError,
)
from wsi_seg.files.half_written import partial_mark
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.names import name_slides
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import verify_slide, verify_slides
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.slides import open_slide
from wsi_seg.slides.window import OpenOptions, Window
from wsi_seg.store import create_collection, open_collection
from wsi_seg.store.group import list_label
from wsi_seg.testing.phantoms import write_mhd
from wsi_seg.testing.store_conformance import zarr_levels

EXTENTS = (Extent(height=203, width=333), Extent(height=81, width=133))
VERBATIM = Codec("verbatim")


def whole(extent, level=0):
    return extent.region(level)


def require_equal(path, out):
    """Slide, fast reader and plain zarr must agree on every pixel of every level."""
    with open_slide(path) as slide:
        store = open_collection(out)[slide.name]
        plain_levels = zarr_levels(store.path)
        for level, extent in enumerate(store.pyramid.extents):
            plain = plain_levels[level]
            assert np.array_equal(store.image.read(whole(extent, level)), plain)
            if level < len(slide.pyramid.extents):
                assert np.array_equal(slide.read(whole(extent, level)), plain)
    return store


@pytest.mark.parametrize(
    "codec", ["raw", "deflate", "lzw", "zstd", "jpeg", "jpeg2000", "webp", "jpegxl"]
)
@pytest.mark.parametrize("tile_px", [64, 48])
def test_verbatim_equals_the_slide(tmp_path, codec, tile_px):
    path, out = tmp_path / "slide.tif", tmp_path / "store.zarr"
    write_coordinate_tiff(path, extents=EXTENTS, codec=codec, tile_px=tile_px)
    report = tile_slides([path], out, codec=VERBATIM, progress=Silent())
    assert all(level.startswith("verbatim") for level in report.slides[0].levels)
    require_equal(path, out)


@pytest.mark.parametrize(
    ("compression", "samples", "encoding"),
    [("jpeg", 1, "verbatim jpeg"), ("zlib", 1, "zstd"), ("zlib", 4, "zstd")],
)
def test_grey_and_alpha(tmp_path, compression, samples, encoding):
    pixels = np.random.default_rng(7).integers(0, 255, (70, 90, samples), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels[..., 0] if samples == 1 else pixels, tile=(32, 32),
        compression=compression, photometric="minisblack" if samples == 1 else "rgb",
        extrasamples=["unassalpha"] if samples == 4 else None, metadata=None,
    )  # fmt: skip
    report = tile_slides([tmp_path / "a.tif"], tmp_path / "out.zarr", progress=Silent())
    assert report.slides[0].levels[0] == encoding
    require_equal(tmp_path / "a.tif", tmp_path / "out.zarr")


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("photometric", ["ycbcr", "rgb"])
def test_jpeg_colours(tmp_path, photometric, subsampling):
    rng = np.random.default_rng(7)
    smooth = rng.integers(0, 255, (9, 11, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    options = {"subsampling": subsampling} if photometric == "ycbcr" else {}
    tifffile.imwrite(
        tmp_path / "a.tif", smooth, tile=(64, 32), compression="jpeg", photometric=photometric,
        metadata=None, **options,
    )  # fmt: skip
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", codec=VERBATIM, progress=Silent())
    require_equal(tmp_path / "a.tif", tmp_path / "s.zarr")


def test_predictor_is_kept(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, tile=(32, 32), compression="lzw", predictor=2, metadata=None
    )
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", codec=VERBATIM, progress=Silent())
    require_equal(tmp_path / "a.tif", tmp_path / "s.zarr")


@pytest.mark.parametrize("tile_px", [64, 48, None])
def test_recoded_equals_the_slide(tmp_path, tile_px):
    path, out = tmp_path / "slide.tif", tmp_path / "store.zarr"
    write_coordinate_tiff(path, extents=(Extent(height=1203, width=1333),), tile_px=tile_px)
    report = tile_slides([path], out, codec=Codec("zstd"), progress=Silent())
    assert report.slides[0].levels == ("zstd", "computed")
    store = require_equal(path, out)
    assert [e.height for e in store.pyramid.extents] == [1203, 602]


def paint(path, height=1100, width=1301):
    """Write smooth tissue-like pixels in strips, which no codec can copy."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([200 - 50 * np.sin(y / 31), 120 + 60 * np.cos(x / 23), 160 + 0 * y], -1)
    tifffile.imwrite(path, pixels.astype(np.uint8), rowsperstrip=37, metadata=None)
    return pixels.astype(np.uint8)


@pytest.mark.parametrize(
    ("codec", "worst"),
    [
        (Codec("jpegxl"), 0),
        (Codec("jpegxl", distance=1.0), 2),
        (Codec("jpeg", quality=95), 2),
        (Codec("jpeg", quality=40), 6),
    ],
    ids=str,
)
def test_recoding_with_an_image_codec(tmp_path, codec, worst):
    path, out = tmp_path / "a.tif", tmp_path / "s.zarr"
    pixels = paint(path)
    report = tile_slides([path], out, codec=codec, progress=Silent())
    assert report.slides[0].levels == (codec.name, "computed")
    store = open_collection(out)["a"]
    assert store.attributes["codec"] == str(codec)
    assert store.image.arrays[1].encoding == codec.encoding  # also where we compute the level
    found = store.image.read(whole(store.pyramid.extent))
    assert np.array_equal(found, zarr_levels(store.path)[0])
    difference = np.abs(found.astype(int) - pixels)
    assert difference.mean() <= worst
    # The border of the slide is inside a chunk; padding must not ring into it.
    assert difference[-8:, -8:].mean() <= worst
    assert verify_slide(store, path).levels == 1
    assert report.slides[0].store_bytes < pixels.size / 8


def test_strength_of_a_codec_is_checked():
    with pytest.raises(ConfigError, match="quality 0"):
        Codec("jpeg", quality=0)
    with pytest.raises(ConfigError, match="distance 16"):
        Codec("jpegxl", distance=16)


def test_attributes_tell_the_source_and_the_override(tmp_path):
    path = tmp_path / "slide.tif"
    write_coordinate_tiff(path, extents=EXTENTS, tile_px=None)
    tile_slides([path], tmp_path / "s.zarr", opening=OpenOptions(mpp=0.7), progress=Silent())
    store = open_collection(tmp_path / "s.zarr")["slide"]
    assert store.pyramid.mpp == 0.7
    assert store.attributes["mpp_source"] == "option"
    noted: Any = store.attributes
    assert noted["levels"][0] == {"encoding": "zstd", "reason": "strips"}
    assert noted["source"]["bytes"] == path.stat().st_size


def test_a_window_is_kept_and_the_slide_verified_through_it(tmp_path):
    pytest.importorskip("SimpleITK", reason="needs the extra `volume`")
    values = np.arange(-160, 240, dtype=np.int16).reshape(1, 20, 20)
    write_mhd(tmp_path / "ct.mhd", values, (1.0, 1.0, 1.0))
    out = tmp_path / "s.zarr"
    shown = OpenOptions(window=Window(-160, 95))
    tile_slides([tmp_path / "ct.mhd"], out, opening=shown, progress=Silent())
    (store,) = open_collection(out)
    assert store.attributes["window"] == [-160, 95]
    pixels = store.image.read(Region(level=0, y=0, x=0, height=20, width=20))[..., 0]
    assert np.array_equal(pixels, (values[0] + 160).clip(0, 255))
    checked = verify_slides(
        name_slides([tmp_path / "ct.mhd"]), open_collection(out), progress=Silent()
    )
    assert checked.slides[0].pixels > 0
    with pytest.raises(StoreError, match="differs in window"):
        tile_slides([tmp_path / "ct.mhd"], out, progress=Silent())


def test_a_finished_slide_is_skipped_and_a_changed_one_refused(tmp_path):
    path, out = tmp_path / "slide.tif", tmp_path / "store.zarr"
    write_coordinate_tiff(path, extents=EXTENTS)
    tile_slides([path], out, progress=Silent())
    assert tile_slides([path], out, progress=Silent()).slides[0].skipped
    write_coordinate_tiff(path, extents=EXTENTS[:1])
    with pytest.raises(StoreError, match="--overwrite"):
        tile_slides([path], out, progress=Silent())
    list_label(out / "slide" / "labels", "annotations")
    report = tile_slides([path], out, overwrite=True, progress=Silent())
    require_equal(path, out)
    assert report.slides[0].replaced_labels == ("annotations",)
    assert report.lines()[-1].startswith("annotations of slide went with the stores")
    again = tile_slides([path], out, overwrite=True, progress=Silent())
    assert not again.slides[0].replaced_labels
    (out / "slide" / "labels" / "zarr.json").write_text("{")
    tile_slides([path], out, overwrite=True, progress=Silent()).require_whole()
    require_equal(path, out)


def test_one_bad_slide_does_not_stop_the_others(tmp_path):
    write_coordinate_tiff(tmp_path / "good.tif", extents=EXTENTS)
    (tmp_path / "bad.tif").write_text("not a slide")
    report = tile_slides([tmp_path], tmp_path / "store.zarr", progress=Silent())
    assert ([slide.name for slide in report.slides], list(report.failures)) == (["good"], ["bad"])
    assert not any("not a slide" in line or "bad" in line for line in report.lines())
    with pytest.raises(BatchError) as caught:
        report.require_whole()
    assert (list(caught.value.failures), caught.value.done) == (["bad"], 1)
    (tmp_path / "good.tif").write_text("not a slide either")
    with pytest.raises(BatchError, match="2 of 2 slides failed"):
        tile_slides([tmp_path], tmp_path / "new.zarr", progress=Silent())
    assert open_collection(tmp_path / "store.zarr").names() == ("good",)


def test_errors_that_come_before_any_work(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_coordinate_tiff(tmp_path / folder / "s.tif", extents=EXTENTS, tile_px=None)
    with pytest.raises(SlideError, match=r"two slides named 's'.*--names path"):
        tile_slides([tmp_path], tmp_path / "store.zarr", progress=Silent())
    with pytest.raises(UnsupportedSlideError, match="strips"):
        tile_slides([tmp_path / "a"], tmp_path / "store.zarr", codec=VERBATIM, progress=Silent())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        tile_slides([tmp_path / "a"], tmp_path / "file", progress=Silent())


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


SCRIPT = """
import sys
from pathlib import Path
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
print("ready", flush=True)
tile_slides([Path(sys.argv[1])], Path(sys.argv[2]), codec=Codec(sys.argv[3]), progress=Silent())
"""


@pytest.mark.parametrize("codec", ["verbatim", "zstd"])
def test_killed_and_resumed_equals_undisturbed(tmp_path, codec):
    path = tmp_path / "slide.tif"
    write_coordinate_tiff(
        path, extents=(Extent(height=1600, width=1500),), codec="zstd", tile_px=16
    )
    tile_slides([path], tmp_path / "calm.zarr", codec=Codec(codec), progress=Silent())
    out = tmp_path / "killed.zarr"
    for moment in (0.01, 0.03, 0.06, 0.1):
        command = [sys.executable, "-c", SCRIPT, str(path), str(out), codec]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(moment)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    tile_slides([path], out, codec=Codec(codec), progress=Silent())
    assert files_of(out) == files_of(tmp_path / "calm.zarr")


def test_what_a_start_that_was_killed_has_half_written_is_removed(tmp_path):
    path, out = tmp_path / "slide.tif", tmp_path / "s.zarr"
    write_coordinate_tiff(path, extents=EXTENTS)
    (out / ".wsi_seg").mkdir(parents=True)
    mark = partial_mark("node7", 1)
    for file in (out / f".zarr.json.{mark}.partial", out / f".wsi_seg/.zarr.json.{mark}.partial"):
        file.write_text("{")
    tile_slides([path], out, progress=Silent())
    tile_slides([path], tmp_path / "calm.zarr", progress=Silent())
    assert files_of(out) == files_of(tmp_path / "calm.zarr")


@pytest.mark.torture
@pytest.mark.parametrize("codec", ["verbatim", "zstd"])
def test_killed_at_twenty_moments(tmp_path, codec):
    path = tmp_path / "slide.tif"
    write_coordinate_tiff(
        path, extents=(Extent(height=4100, width=3900),), codec="zstd", tile_px=64
    )
    started = time.monotonic()
    tile_slides([path], tmp_path / "calm.zarr", codec=Codec(codec), progress=Silent())
    seconds, calm = time.monotonic() - started, files_of(tmp_path / "calm.zarr")
    draws = np.random.default_rng(5)
    for turn in range(20):
        out = tmp_path / f"killed{turn}.zarr"
        command = [sys.executable, "-c", SCRIPT, str(path), str(out), codec]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(draws.uniform(0, 1.2 * seconds))
            child.kill()
        tile_slides([path], out, codec=Codec(codec), progress=Silent())
        assert files_of(out) == calm


@pytest.mark.parametrize("codec", ["verbatim", "zstd"])
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, monkeypatch, codec):
    path = tmp_path / "slide.tif"
    write_coordinate_tiff(
        path, extents=(Extent(height=1600, width=1500),), codec="zstd", tile_px=64
    )
    tile_slides([path], tmp_path / "calm.zarr", codec=Codec(codec), progress=Silent())
    sync, calls = os.fsync, itertools.count()
    room = 0

    def full(descriptor):
        if next(calls) == room:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for room in range(6):  # the disk is full at the first write, at the second ...
        out, calls = tmp_path / f"full{room}.zarr", itertools.count()
        with pytest.raises(OutputError, match="No space left on device"):
            tile_slides([path], out, codec=Codec(codec), progress=Silent())
        calls = itertools.count(room + 1)
        tile_slides([path], out, codec=Codec(codec), progress=Silent())
        assert files_of(out) == files_of(tmp_path / "calm.zarr")


def test_a_shard_damaged_between_two_runs_is_written_again(tmp_path, monkeypatch):
    path, out = tmp_path / "slide.tif", tmp_path / "store.zarr"
    write_coordinate_tiff(path, extents=(Extent(height=1300, width=700),), tile_px=64)

    def stop(store, _):
        shard = store.path / "0/c/0/0/0"
        shard.write_bytes(shard.read_bytes()[:-9])
        raise StoreError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr("wsi_seg.ingest.job.write_mask_of", stop)
        with pytest.raises(StoreError, match="stopped here"):
            tile_slides([path], out, progress=Silent())
    assert open_collection_names(out) == ()
    tile_slides([path], out, progress=Silent())
    require_equal(path, out)


def open_collection_names(out):
    return tuple(
        child.name for child in out.iterdir() if child.name not in {".wsi_seg", "zarr.json"}
    )


def test_real_slides_are_copied_exactly(shared_data, tmp_path):
    names = ("CMU-1-Small-Region.svs", "CMU-1-Small-Region.jp2.tiff")
    paths = [shared_data / "slides-small" / name for name in names]
    tile_slides(paths, tmp_path / "store.zarr", codec=VERBATIM, progress=Silent()).require_whole()
    for path in paths:
        require_equal(path, tmp_path / "store.zarr")


def test_many_small_slides_at_once_all_arrive(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(60):
        write_coordinate_tiff(
            folder / f"s{number}.tif", extents=[Extent(height=20, width=30)], tile_px=16
        )
    report = tile_slides([folder], tmp_path / "s.zarr", workers=4, progress=Silent())
    assert len(report.slides) == 60
    assert not (tmp_path / "s.zarr" / ".wsi_seg/partial").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own peak")
def test_memory_does_not_grow_with_the_slide(tmp_path):
    """Twice the height, recoded and reduced: the same peak (below it, allocators warm up)."""
    peaks = []
    for height in (8000, 16000):
        path = tmp_path / f"{height}.tif"
        rows = (np.full((100, 6000, 3), n % 200, np.uint8) for n in range(height // 100))
        tifffile.imwrite(
            path, rows, shape=(height, 6000, 3), dtype=np.uint8, rowsperstrip=100, metadata=None,
            photometric="rgb",
        )  # fmt: skip
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "s.zarr")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] * 1.15
    assert peaks[1] < 600


PEAK = r"""
import re, sys
from pathlib import Path
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.ingest.run import tile_slides
tile_slides([Path(sys.argv[1])], Path(sys.argv[2]), progress=Silent())
# Not getrusage: a child's figure begins with that of the process that started it.
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_where_no_slide_could_be_tiled(tmp_path, there):
    (tmp_path / "a.tif").write_text("broken")
    (tmp_path / "b.tif").write_text("broken")
    out = tmp_path / "store.zarr"
    if there:
        create_collection(out)
    for paths in ([tmp_path / "a.tif"], [tmp_path], [tmp_path / "no-such"]):
        with pytest.raises(WsiSegError):
            tile_slides(paths, out)
        assert out.exists() == there


def test_a_path_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(SlideError, match="no such file or folder; expected a slide"):
        tile_slides([tmp_path / "slide"], tmp_path / "s.zarr")


def test_slides_without_mpp_are_named_with_the_command_that_gives_it(tmp_path):
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=90, width=140)], mpp=None)
    report = tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr")
    assert "mpp is unknown of a" in report.lines()[-1]
    assert f"--overwrite --out {tmp_path / 's.zarr'}" in report.lines()[-1]


def test_shards_write_the_collection_while_others_see_them(tmp_path, monkeypatch):
    # A starting process removes half-written files of processes that are not registered.
    out, seen = tmp_path / "store.zarr", list[tuple[str, bool]]()
    write_coordinate_tiff(tmp_path / "a.tif", extents=EXTENTS)
    replace = Path.replace

    def watched(path, target):
        if target.parent == out:
            seen.append((target.name, any(out.glob(".wsi_seg/run/*.alive"))))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    found = name_slides([tmp_path / "a.tif"])
    tile_slides(dataclasses.replace(found, shard=Shard(1, 2)), out)
    tile_slides(dataclasses.replace(found, shard=Shard(2, 2)), out)
    assert open_collection(out).names() == ("a",)
    assert seen
    assert all(registered for _, registered in seen)


@pytest.mark.parametrize(("codec", "step"), [("zstd", "recode._read_into"), ("auto", "plan._plan")])
def test_no_thread_works_on_a_slide_that_has_failed(tmp_path, monkeypatch, codec, step):
    extents = (Extent(height=203, width=1500), Extent(height=101, width=750))
    write_coordinate_tiff(tmp_path / "slide.tif", extents=extents, codec="deflate", tile_px=64)
    begun, count, ended = threading.Event(), itertools.count(), []

    def work(*_):
        if next(count) == 0:
            begun.wait(10)
            raise SlideError("damaged")
        begun.set()
        time.sleep(0.3)
        ended.append(True)

    monkeypatch.setattr("wsi_seg.store.cache.available_cores", lambda: 2)
    monkeypatch.setattr(f"wsi_seg.ingest.{step}", work)
    with pytest.raises(SlideError, match="damaged"):
        tile_slides([tmp_path / "slide.tif"], tmp_path / "s", codec=Codec(codec), progress=Silent())
    assert ended
    assert len(ended) == next(count) - 1
