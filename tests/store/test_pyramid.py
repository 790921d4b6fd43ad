"""Coarser levels made on the way equal those made at the end: any size, strips, kill and resume."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region, dyadic_extents
from wsi_seg.progress import Silent
from wsi_seg.store import (
    CoarserLevels,
    Layout,
    commit,
    create_multiscale,
    fill_pyramid,
    open_multiscale,
    strip_rows,
    write_strip,
)
from wsi_seg.store import digests as digests_module
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout
from wsi_seg.store.shards import checksum_and_end
from wsi_seg.testing.stores import digests

SHARD_PX = 8


def make_group(path, pixels, extents):
    """Group whose level 0 is written and whose other levels are empty."""
    channels = None if pixels.ndim == 2 else pixels.shape[2]
    layout = Layout.of(extents, channels=channels, mpp=None, chunk_px=4, shard_px=SHARD_PX)
    create_multiscale(path, layout, {})
    return write_level(path, pixels)


def write_level(path, pixels):
    checksums: dict[str, int] = {}
    rows = strip_rows(path)
    for y in range(0, len(pixels), rows):
        checksums |= write_strip(path, 0, y, pixels[y : y + rows])
    return checksums


@st.composite
def images(draw):
    """Random pixels with regions of 0, whose shards have no file."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 40))
    channels = draw(st.sampled_from([None, 1, 2, 3, 5]))
    shape = (height, width) if channels is None else (height, width, channels)
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape, dtype=np.uint8)
    pixels[: draw(st.integers(0, height)), draw(st.integers(0, width)) :] = 0
    return pixels


@st.composite
def visits(draw, height):
    """First rows and ends of what is put: runs of strips from anywhere, in any order."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        y = draw(st.integers(0, height - 1))
        for size in draw(st.lists(st.integers(1, 20), max_size=6)):
            if y < height:
                found.append((y, min(y + size, height)))
                y = found[-1][1]
    return found


@given(data=st.data(), pixels=images(), nearest=st.booleans())
def test_any_rows_first_and_the_rest_at_the_end(data, pixels, nearest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pyramid")
    extents = dyadic_extents(Extent.of(pixels.shape), data.draw(st.integers(1, 5)))
    known = make_group(folder / "calm", pixels, extents)
    shutil.copytree(folder / "calm", folder / "put")
    known |= fill_pyramid(folder / "calm", nearest=nearest, progress=Silent())

    levels = CoarserLevels(folder / "put", nearest=nearest)
    done: set[tuple[int, int]] = set()
    found: dict[str, int] = {}
    for y, y_end in data.draw(visits(len(pixels))):
        written = levels.put(y, pixels[y:y_end])
        done |= set(written.rows)
        found |= written.checksums
    found |= fill_pyramid(folder / "put", nearest=nearest, progress=Silent(), done=done)
    assert digests(folder / "put") == digests(folder / "calm")
    assert write_level(folder / "put", pixels) | found == known
    shutil.rmtree(folder)


@given(pixels=images(), sizes=st.lists(st.integers(1, 30), min_size=1), nearest=st.booleans())
def test_nothing_is_left_after_the_last_row(pixels, sizes, nearest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pyramid")
    make_group(folder, pixels, dyadic_extents(Extent.of(pixels.shape), 4))
    levels, done, y, turn = CoarserLevels(folder, nearest=nearest), [], 0, 0
    while y < len(pixels):
        done += levels.put(y, pixels[y : y + sizes[turn % len(sizes)]]).rows
        y, turn = y + sizes[turn % len(sizes)], turn + 1
    before = digests(folder)
    assert fill_pyramid(folder, nearest=nearest, progress=Silent(), done=done) == {}
    assert len(done) == len(set(done))  # each is written once
    fill_pyramid(folder, nearest=nearest, progress=Silent())
    assert digests(folder) == before
    shutil.rmtree(folder)


def test_levels_that_are_not_halves_are_left_to_the_end(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    extents = [
        Extent(height=50, width=41),
        Extent(height=25, width=21),
        Extent(height=10, width=7),
        Extent(height=5, width=4),
    ]
    make_group(tmp_path / "calm", pixels, extents)
    shutil.copytree(tmp_path / "calm", tmp_path / "put")
    fill_pyramid(tmp_path / "calm", nearest=False, progress=Silent())
    written = CoarserLevels(tmp_path / "put", nearest=False).put(0, pixels)
    assert {level for level, _ in written.rows} == {1}
    fill_pyramid(tmp_path / "put", nearest=False, progress=Silent(), done=written.rows)
    assert digests(tmp_path / "put") == digests(tmp_path / "calm")


def test_rows_before_a_lossy_encoding_are_not_what_a_reader_sees(tmp_path):
    levels = tuple(
        LevelLayout(
            extent, Extent(height=8, width=8), Extent(height=8, width=8), Encoding("jpeg", loss=50)
        )
        for extent in dyadic_extents(Extent(height=20, width=20), 2)
    )
    create_multiscale(tmp_path, Layout(levels=levels, channels=3, mpp=None), {})
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert CoarserLevels(tmp_path, nearest=False).put(0, pixels).rows == []


@pytest.mark.parametrize(
    ("y", "shape"), [(0, (8, 9)), (0, (8, 9, 3)), (14, (8, 10, 3)), (-1, (8, 10, 3))]
)
def test_rows_that_do_not_fit_are_refused(tmp_path, y, shape):
    make_group(
        tmp_path,
        np.zeros((20, 10, 3), np.uint8),
        [Extent(height=20, width=10), Extent(height=10, width=5)],
    )
    levels = CoarserLevels(tmp_path, nearest=False)
    with pytest.raises(StoreError, match="expected whole rows"):
        levels.put(y, np.zeros(shape, np.uint8))
    with pytest.raises(StoreError, match="int16"):
        levels.put(0, np.zeros((8, 10, 3), np.int16))


def test_finishing_reads_no_shard_again(tmp_path, monkeypatch):
    """Neither of the image nor of its label, if all checksums were handed over."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    extents = dyadic_extents(Extent(height=50, width=41), 3)
    for name in ("whole", "known"):
        group = tmp_path / name / "a"
        label = group / "labels" / "truth"
        known = make_group(group, pixels, extents)
        known |= fill_pyramid(group, nearest=False, progress=Silent())
        theirs = make_group(label, pixels[..., 0], extents)
        theirs |= fill_pyramid(label, nearest=True, progress=Silent())
        known |= {f"labels/truth/{path}": crc for path, crc in theirs.items()}
        if name == "whole":
            commit(group, tmp_path / "done" / name)
    read, real = [], checksum_and_end

    def spied(path):
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(digests_module, "checksum_and_end", spied)
    commit(group, tmp_path / "done" / name, known=known)
    assert set(read) == {"zarr.json"}
    assert digests(tmp_path / "done" / "known") == digests(tmp_path / "done" / "whole")


def test_levels_equal_what_a_reader_reduces(tmp_path):
    """Through the reader: what is on disk is the mean of four of the finer level."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 1), dtype=np.uint8)
    make_group(tmp_path, pixels, dyadic_extents(Extent(height=64, width=48), 2))
    CoarserLevels(tmp_path, nearest=False).put(0, pixels)
    found = open_multiscale(tmp_path).read(Region(level=1, y=0, x=0, height=32, width=24))
    fours = pixels.astype(int).reshape(32, 2, 24, 2, 1).sum(axis=(1, 3))
    assert np.array_equal(found, (fours + 2) // 4)
