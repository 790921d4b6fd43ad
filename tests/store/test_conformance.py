"""Every kind of stored image and label passes the public checks, and these notice what is wrong."""

import shutil
from functools import partial

import numpy as np
import pytest

from tests.makers.coordinates import coordinate_pixels, write_coordinate_tiff
from tests.makers.painted import NAME, write_prediction
from wsi_seg.geometry import Extent
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_multiscale
from wsi_seg.testing.store_conformance import check_store, zarr_levels

EXTENTS = (Extent(height=333, width=271), Extent(height=167, width=136))
STREAMS = ("raw", "deflate", "lzw", "zstd", "jpeg", "jpeg2000", "webp", "jpegxl")


@pytest.fixture
def tiled(tmp_path):
    """Write a slide whose pixels say where they are, and tile it."""

    def tile(stream, codec):
        path, out = tmp_path / "a.tif", tmp_path / "s.zarr"
        write_coordinate_tiff(path, extents=EXTENTS, codec=stream, mpp=0.5)
        tile_slides([path], out, codec=codec, progress=Silent())
        return out / "a"

    return tile


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_copied_from_a_slide(tiled, stream):
    group = tiled(stream, Codec("verbatim"))
    check_store(partial(open_multiscale, group), zarr_levels(group), mpp=0.5)


@pytest.mark.parametrize(
    "codec", [Codec("zstd"), Codec("jpeg"), Codec("jpegxl"), Codec("jpegxl", distance=1.0)], ids=str
)
def test_encoded_again(tiled, codec):
    group = tiled("zstd", codec)
    levels = zarr_levels(group)
    if codec.encoding.loss in (None, 0):
        expected = coordinate_pixels(EXTENTS[0].region(), EXTENTS[0])
        assert np.array_equal(levels[0], expected)
    check_store(partial(open_multiscale, group), levels, mpp=0.5)


def test_the_tissue_mask(tiled):
    group = tiled("zstd", Codec("zstd")) / "labels" / "tissue"
    label = open_multiscale(group)
    check_store(partial(open_multiscale, group), zarr_levels(group), mpp=0.5 * label.downsample)


def test_a_label_of_ids_and_probabilities_of_one_channel(tmp_path):
    y, x = np.mgrid[:611, :333]
    write_prediction(tmp_path / "p.zarr", (y * 5 + x * 3).astype(np.uint8))
    group = tmp_path / "p.zarr" / NAME
    for folder in (group, group / "labels" / "prediction"):
        check_store(partial(open_multiscale, folder), zarr_levels(folder), mpp=2.0)


def test_chunks_that_are_missing(tiled):
    group = tiled("zstd", Codec("zstd"))
    shutil.rmtree(group / "1" / "c")
    levels = zarr_levels(group)
    assert not levels[1].any()
    check_store(lambda: open_collection(group.parent)["a"].image, levels, mpp=0.5)


def test_levels_that_are_swapped_or_moved_are_noticed(tiled):
    group = tiled("zstd", Codec("zstd"))
    levels = zarr_levels(group)
    opener = partial(open_multiscale, group)
    for wrong in (levels[:1], levels[::-1], [np.roll(levels[0], 1, axis=1), levels[1]]):
        with pytest.raises(AssertionError):
            check_store(opener, wrong, mpp=0.5)
    with pytest.raises(AssertionError):
        check_store(opener, levels, mpp=None)
