"""Stores: what is written comes back, the same through plain zarr; damage is never silent."""

import multiprocessing
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image

from tests.makers.coordinates import coordinate_pixels, write_coordinate_tiff
from wsi_seg import cores
from wsi_seg.errors import (
    OutputError,
    RegionError,
    StoreError,
    StoreIncompleteError,
    StoreNotFoundError,
)
from wsi_seg.files.shared import read_version
from wsi_seg.geometry import Extent, Region, extend_pyramid
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import (
    Layout,
    commit,
    create_collection,
    create_multiscale,
    fill_pyramid,
    open_collection,
    open_predictions,
    open_stores,
    strip_rows,
    write_strip,
)
from wsi_seg.store import (
    arrays as arrays_module,
)
from wsi_seg.store.cache import ChunkCache, shared_cache, shared_pool
from wsi_seg.store.shards import Shard, read_index, write_shard
from wsi_seg.testing.store_conformance import check_store, zarr_levels
from wsi_seg.testing.stores import digests, make_store

EXTENT = Extent(height=333, width=271)
EXTENTS = (EXTENT, Extent(height=167, width=136))
CLASSES = [{"name": "gland", "colour": "#d55e00"}]


def whole(extent, level=0):
    return extent.region(level)


def write_store(collection, *, name="slide", extents=EXTENTS, channels=3, torn=()):
    """Store of coordinate pixels, with a label; returns level-0 pixels."""
    create_collection(collection)
    partial = collection / ".wsi_seg/partial" / name
    label = partial / "labels" / "truth"
    layout = Layout.of(extents, channels=channels, mpp=0.5, chunk_px=32, shard_px=64)
    pixels = coordinate_pixels(whole(extents[0]), extents[0])
    pixels[70:140, :100] = 0  # chunks that are all 0, and so not written
    create_multiscale(partial, layout, {"kind": "slide"})
    attributes = {"kind": "label", "classes": CLASSES}
    create_multiscale(label, replace(layout, channels=None), attributes)
    for y in range(0, extents[0].height, strip_rows(partial)):
        rows = pixels[y : y + strip_rows(partial)]
        write_strip(partial, 0, y, rows[:, :, :channels])
        write_strip(label, 0, y, rows[:, :, 2] % 2)
    fill_pyramid(partial, nearest=False, progress=Silent())
    fill_pyramid(label, nearest=True, progress=Silent())
    for file in torn:
        (partial / file).parent.mkdir(parents=True, exist_ok=True)
        (partial / file).write_bytes(b"{")
    commit(partial, collection / name)
    return pixels


def test_what_a_kill_left_of_half_written_files_is_swept_up(tmp_path):
    write_store(tmp_path / "calm.zarr")
    write_store(tmp_path / "cut.zarr", torn=("0/zarr.0a1b.partial", "labels/truth/0/c/0/0.tmp"))
    assert digests(tmp_path / "cut.zarr") == digests(tmp_path / "calm.zarr")


def test_fast_reader_equals_zarr(tmp_path):
    pixels = write_store(tmp_path / "store.zarr")
    store = open_collection(tmp_path / "store.zarr")["slide"]
    group = tmp_path / "store.zarr" / "slide"
    check_store(lambda: store.image, zarr_levels(group), mpp=0.5)
    truth = zarr_levels(group / "labels" / "truth")
    check_store(lambda: store.label("truth"), truth, mpp=0.5)
    assert np.array_equal(store.image.read(whole(EXTENT)), pixels)
    assert (store.pyramid.mpp, store.image.channels, store.label_names()) == (0.5, 3, ("truth",))


@given(data=st.data())
def test_any_region_is_a_slice(data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "regions.zarr"
    if not folder.exists():
        write_store(folder)
    image = open_collection(folder)["slide"].image
    y = data.draw(st.integers(0, EXTENT.height - 1))
    x = data.draw(st.integers(0, EXTENT.width - 1))
    region = Region(
        level=0,
        y=y,
        x=x,
        height=data.draw(st.integers(1, EXTENT.height - y)),
        width=data.draw(st.integers(1, EXTENT.width - x)),
    )
    expected = image.read(whole(EXTENT))[region.slices]
    cached = data.draw(st.booleans())
    assert np.array_equal(image.read(region, cached=cached), expected)
    around = np.full((region.height + 2, region.width + 3, 3), 7, dtype=np.uint8)
    out = around[1:-1, 2:-1]
    assert image.read(region, cached=cached, out=out) is out
    assert np.array_equal(out, expected)
    assert (around == 7).sum() == around.size - out.size + (out == 7).sum()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 9), np.uint8), ((9, 8, 3), np.uint8), ((8, 9, 3), np.int16)]
)
def test_an_array_that_does_not_fit_is_not_filled(tmp_path, shape, dtype):
    write_store(tmp_path / "store.zarr")
    image = open_collection(tmp_path / "store.zarr")["slide"].image
    region = Region(level=0, y=0, x=0, height=8, width=9)
    with pytest.raises(StoreError, match=r"expected \(8, 9, 3\) writable uint8"):
        image.read(region, out=np.zeros(shape, dtype))
    fitting = np.zeros((8, 9, 3), np.uint8)
    fitting.flags.writeable = False
    with pytest.raises(StoreError, match="read-only"):
        image.read(region, out=fitting)


@pytest.mark.parametrize("cached", [False, True])
def test_a_read_opens_and_decodes_nothing_twice(tmp_path, monkeypatch, cached):
    pixels = write_store(tmp_path / "store.zarr")
    image = open_collection(tmp_path / "store.zarr")["slide"].image
    opened: list[tuple[object, ...]] = []
    indices: list[tuple[Shard]] = []
    spans: list[tuple[Any, ...]] = []
    index, read = Shard.index, Shard.read

    def noting(seen, call):
        def noted(*given):
            seen.append(given)
            return call(*given)

        return noted

    monkeypatch.setattr(os, "open", noting(opened, os.open))
    monkeypatch.setattr(Shard, "index", noting(indices, index))
    monkeypatch.setattr(Shard, "read", noting(spans, read))
    assert np.array_equal(image.read(whole(EXTENT), cached=cached), pixels)
    assert len(indices) == len({shard.path for (shard,) in indices}) == 6
    assert (
        len(spans)
        == len({(shard.path, *span) for shard, *span in spans})
        == np.count_nonzero(
            [
                pixels[y : y + 32, x : x + 32].any()
                for y in range(0, 333, 32)
                for x in range(0, 271, 32)
            ]
        )
    )
    assert len(opened) <= 6 * 5  # once for four of 18 chunks
    image.read(whole(EXTENT), cached=cached)
    assert len(indices) == (6 if cached else 12)


def test_an_uncached_read_sees_what_was_written_since(tmp_path):
    write_store(tmp_path / "store.zarr")
    group = tmp_path / "store.zarr" / "slide"
    image = open_collection(tmp_path / "store.zarr")["slide"].image
    held = shared_cache().nbytes
    region = Region(level=0, y=64, x=0, height=64, width=271)
    for value in (0, 9, 200):
        write_strip(group, 0, 64, np.full((64, 271, 3), value, dtype=np.uint8))
        assert (image.read(region, cached=False) == value).all()
    assert shared_cache().nbytes == held


def test_the_pool_is_made_again_when_the_share_of_the_cores_changes(monkeypatch):
    monkeypatch.setattr(cores, "_affinity", lambda: 6)
    monkeypatch.setattr(cores, "quota_cores", lambda: None)
    cores.share_cores(1)  # whatever an earlier test has left
    whole_pool = shared_pool()
    try:
        cores.share_cores(3)
        shared = shared_pool()
        assert shared is not whole_pool
        assert shared is shared_pool()
        gate = threading.Barrier(3)  # this thread and two of the pool
        jobs = [shared.submit(gate.wait, 5) for _ in range(2)]
        gate.wait(5)
        assert sorted(job.result() for job in jobs) in ([0, 1], [0, 2], [1, 2])
        assert whole_pool.submit(len, "abc").result() == 3  # whoever still holds it goes on
    finally:
        cores.share_cores(1)


def test_readers_are_safe_among_threads_pickles_and_forks(tmp_path):
    pixels = write_store(tmp_path / "store.zarr")
    image = open_collection(tmp_path / "store.zarr")["slide"].image
    regions = [Region(level=0, y=y, x=5, height=64, width=200) for y in range(0, 260, 13)]
    with ThreadPoolExecutor(8) as pool:
        for region, found in zip(regions, pool.map(image.read, regions), strict=True):
            assert np.array_equal(found, pixels[region.slices])
    again = pickle.loads(pickle.dumps(image))
    assert np.array_equal(again.read(regions[0]), pixels[regions[0].slices])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_reads(tmp_path):
    pixels = write_store(tmp_path / "store.zarr")
    image = open_collection(tmp_path / "store.zarr")["slide"].image
    image.read(whole(EXTENT))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(int(image.read(whole(EXTENT)).sum())))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == int(pixels.sum())


def test_a_chunk_is_never_decoded_twice_at_once():
    cache, made, gate = ChunkCache(1000), [], threading.Event()

    def make():
        made.append(1)
        gate.wait(5)
        return np.zeros(100, dtype=np.uint8)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(cache.get_or_make, "key", make) for _ in range(4)]
        time.sleep(0.05)
        gate.set()
        assert len({id(job.result()) for job in jobs}) == 1
    assert len(made) == 1
    for key in range(50):
        cache.get_or_make(key, lambda: np.zeros(100, dtype=np.uint8))
        assert cache.nbytes <= 1000


def noted(group) -> Any:
    """What OME-Zarr says of a group, read with zarr-python."""
    return zarr.open_group(str(group), mode="r").attrs["ome"]


def test_ome_metadata(tmp_path):
    write_store(tmp_path / "store.zarr")
    ome = noted(tmp_path / "store.zarr" / "slide")
    scales = [
        level["coordinateTransformations"][0]["scale"]
        for level in ome["multiscales"][0]["datasets"]
    ]
    assert ome["version"] == "0.5"
    assert scales == [[1.0, 0.5, 0.5], [1.0, 1.0, 1.0]]
    assert [axis["name"] for axis in ome["multiscales"][0]["axes"]] == ["c", "y", "x"]
    labels = tmp_path / "store.zarr" / "slide" / "labels"
    assert noted(labels)["labels"] == ["truth"]
    assert noted(labels / "truth")["image-label"]["colors"] == [
        {"label-value": 1, "rgba": [213, 94, 0, 255]}
    ]


def test_messages_name_what_is_there(tmp_path):
    with pytest.raises(StoreNotFoundError, match="wsi-seg tile"):
        open_collection(tmp_path / "none.zarr")
    write_store(tmp_path / "store.zarr")
    collection = open_collection(tmp_path / "store.zarr")
    with pytest.raises(StoreNotFoundError, match="it has: slide"):
        collection["other"]
    with pytest.raises(StoreError, match="it has: truth"):
        collection["slide"].label("other")
    with pytest.raises(RegionError, match="inside"):
        collection["slide"].image.read(Region(level=0, y=330, x=0, height=5, width=5))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OutputError, match="not a collection"):
        create_collection(tmp_path / "full")


@pytest.mark.parametrize("name", ["..", ".", "", ".hidden", ".wsi_seg", "a/../a", "x" * 300, "a\0"])
def test_a_collection_contains_only_what_it_lists(tmp_path, name):
    make_store(tmp_path / "s.zarr", "a", 8, 8)
    shutil.copytree(tmp_path / "s.zarr/a", tmp_path / "s.zarr/.hidden")
    shutil.copy(tmp_path / "s.zarr/zarr.json", tmp_path)  # the collection is in a group itself
    slides = open_collection(tmp_path / "s.zarr")
    assert "a" in slides
    assert slides.names() == ("a",)
    assert name not in slides
    with pytest.raises(StoreNotFoundError, match="it has: a"):
        slides[name]


def test_slides_and_predictions_are_not_taken_for_each_other(tmp_path):
    with pytest.raises(StoreNotFoundError, match="wsi-seg infer"):
        open_predictions(tmp_path / "none.zarr")
    write_store(tmp_path / "store.zarr")
    with pytest.raises(StoreError, match=r"holds slides; expected predictions.* come first"):
        open_predictions(tmp_path / "store.zarr")
    create_collection(tmp_path / "pred.zarr")
    layout = Layout.of(EXTENTS, channels=1, mpp=0.5)
    create_multiscale(tmp_path / "pred.zarr" / "slide", layout, {"kind": "prediction"})
    predictions = open_predictions(tmp_path / "pred.zarr")
    assert predictions.names() == ("slide",)
    with pytest.raises(StoreError, match=r"holds predictions; expected slides.* come first"):
        open_collection(tmp_path / "pred.zarr")
    assert open_stores(tmp_path / "pred.zarr").names() == predictions.names()
    assert predictions != open_stores(tmp_path / "pred.zarr")
    assert repr(pickle.loads(pickle.dumps(predictions))) == repr(predictions)
    assert repr(predictions).startswith("<Predictions ")


def test_unfinished_stores_are_refused(tmp_path):
    path = tmp_path / "store.zarr"
    create_collection(path)
    layout = Layout.of([EXTENT], channels=3, mpp=None)
    create_multiscale(path / ".wsi_seg/partial" / "a", layout, {})
    with pytest.raises(StoreIncompleteError, match="unfinished"):
        open_collection(path)


def test_a_flipped_bit_in_an_index_is_noticed(tmp_path):
    write_store(tmp_path / "store.zarr")
    shard = tmp_path / "store.zarr/slide/0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[-12] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="checksum"):
        open_collection(tmp_path / "store.zarr")["slide"].image.read(whole(EXTENT))


def test_a_damaged_chunk_names_its_place(tmp_path):
    write_store(tmp_path / "store.zarr")
    shard = tmp_path / "store.zarr/slide/0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[:8] = bytes(8)
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="row=0 column=0"):
        open_collection(tmp_path / "store.zarr")["slide"].image.read(whole(EXTENT))


@given(st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=9))
def test_shards_give_back_their_chunks(tmp_path_factory, chunks):
    path = tmp_path_factory.mktemp("shard") / "0"
    write_shard(path, chunks)
    index = read_index(path, len(chunks))
    data = path.read_bytes() if path.exists() else b""
    for number, chunk in enumerate(chunks):
        if chunk is None:
            assert index is None or index[number, 0] == 2**64 - 1
        else:
            assert index is not None
            offset, size = (int(n) for n in index[number])
            assert data[offset : offset + size] == chunk


def test_a_pyramid_ends_below_1024():
    extents = extend_pyramid([Extent(height=5001, width=333)])
    assert [e.height for e in extents] == [5001, 2501, 1251, 626]
    assert extend_pyramid([Extent(height=9, width=9)]) == (Extent(height=9, width=9),)


def test_metadata_and_labels_follow_ome_zarr(tmp_path):
    """The community's own models judge: axes, scales, labels with as many levels as the image."""
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=1500, width=2100)], mpp=0.5)
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", progress=Silent())
    image = Image.from_zarr(zarr.open_group(str(tmp_path / "s.zarr" / "a"), mode="r"))
    assert image.labels is not None
    assert image.labels.label_paths == ["tissue"]
    for group in (image, image.labels.get_image_labels_group("tissue")):
        (scales,) = group.ome_attributes.multiscales
        assert [axis.unit for axis in scales.axes[-2:]] == ["micrometer", "micrometer"]
        assert len(scales.datasets) == 3


def test_each_file_of_metadata_is_read_once(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_store(tmp_path / "s.zarr", name, 60, 50)
    slides, read = open_collection(tmp_path / "s.zarr"), []

    def counted(path):
        read.append(path)
        return read_version(path)

    monkeypatch.setattr(arrays_module, "read_version", counted)
    opened = list(slides)
    groups = [tmp_path / "s.zarr" / name for name in ("a", "b")]
    assert read == [group / "zarr.json" for group in groups]  # however many levels there are
    for slide in opened * 2:
        assert slide.image.chunk(0) == slide.image.arrays[0].chunk
    assert read[2:] == [group / "0/zarr.json" for group in groups]
