"""What copied streams and computed levels hold: read the same by others, close to the mean."""

import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from wsi_seg.codestreams.lengths import trim_stream
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Region
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import verify_slide
from wsi_seg.progress import Silent
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store import open_collection

RGB = (np.arange(200 * 300 * 3) // 7 % 251).astype(np.uint8).reshape(200, 300, 3)


def tiles(side=128):
    for y in range(0, RGB.shape[0], side):
        for x in range(0, RGB.shape[1], side):
            tile = RGB[y : y + side, x : x + side]
            missing = [(0, side - have) for have in tile.shape[:2]]
            yield np.ascontiguousarray(np.pad(tile, (*missing, (0, 0)), mode="edge"))


def lzw_without_end(data):
    """LZW of literals of 9 bits, cleared every 200 bytes, without an end code."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


STREAMS = {
    "lzw, padded": ("lzw", lambda data: lzw_without_end(data) + bytes(37)),
    "lzw, more rows": ("lzw", lambda data: bytes(imagecodecs.lzw_encode(data + bytes(500)))),
    "deflate, padded": ("zlib", lambda data: zlib.compress(data) + bytes(50)),
    "deflate, more rows": ("zlib", lambda data: zlib.compress(data + bytes(500))),
    "zstd, more rows": ("zstd", lambda data: bytes(imagecodecs.zstd_encode(data + bytes(500)))),
    "raw, more rows": (None, lambda data: data + bytes(500)),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_that_go_on_are_cut(tmp_path, kind):
    compression, encode = STREAMS[kind]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            (encode(tile.tobytes()) for tile in tiles()), shape=RGB.shape, dtype="uint8",
            photometric="rgb", compression=compression, tile=(128, 128), metadata=None,
        )  # fmt: skip
    tile_slides([path], tmp_path / "s.zarr", progress=Silent()).require_whole()
    (store,) = open_collection(tmp_path / "s.zarr")
    plain: Any = zarr.open_array(str(store.path / "0"), mode="r")[:]
    assert np.array_equal(np.moveaxis(plain, 0, -1), RGB)
    assert np.array_equal(store.image.read(Region(level=0, y=0, x=0, height=200, width=300)), RGB)


@pytest.mark.parametrize("kind", ["lzw", "deflate", "zstd", "raw"])
def test_streams_that_end_in_time_are_not_touched(kind):
    data = bytes(range(200)) * 3
    codecs: dict[str, Any] = {
        "lzw": imagecodecs.lzw_encode, "deflate": zlib.compress, "raw": bytes,
        "zstd": imagecodecs.zstd_encode,
    }  # fmt: skip
    stream = codecs[kind](data)
    assert trim_stream(bytes(stream), kind, len(data)) == bytes(stream)


def smooth(height=1500, width=1300):
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(5).integers(-6, 7, (height, width, 1))
    stains = np.stack([200 - 50 * np.sin(y / 31), 120 + 60 * np.cos(x / 23), 160 + 0 * y], -1)
    return (stains + noise).clip(0, 255).astype(np.uint8)


def far_from_mean(out):
    """Mean difference of level 1 from the exact mean of level 0, of 255."""
    (store,) = open_collection(out)
    full, half = (
        store.image.read(Region(level=n, y=0, x=0, height=e.height, width=e.width)).astype(float)
        for n, e in enumerate(store.pyramid.extents[:2])
    )
    odd = [(0, side % 2) for side in full.shape[:2]]
    full = np.pad(full, (*odd, (0, 0)), mode="edge")
    mean = (full[::2, ::2] + full[1::2, ::2] + full[::2, 1::2] + full[1::2, 1::2]) / 4
    return np.abs(half - mean).mean()


def test_levels_below_copied_jpeg_are_jpeg(tmp_path):
    path, out = tmp_path / "a.tif", tmp_path / "s.zarr"
    tifffile.imwrite(
        path, smooth(), photometric="rgb", compression="jpeg", compressionargs={"level": 85},
        tile=(256, 256), metadata=None,
    )  # fmt: skip
    (tiled,) = tile_slides([path], out, progress=Silent()).slides
    assert tiled.levels == ("verbatim jpeg", "computed")
    (store,) = open_collection(out)
    assert store.image.arrays[1].encoding.kind == "jpeg"
    assert verify_slide(store, path).levels == 1
    assert far_from_mean(out) <= 1
    lossless = tile_slides([path], tmp_path / "z.zarr", codec=Codec("zstd"), progress=Silent())
    assert tiled.store_bytes < lossless.slides[0].store_bytes / 2


def test_the_store_of_a_real_slide_is_hardly_larger(shared_data, tmp_path):
    path = shared_data / "slides-small" / "CMU-1-Small-Region.svs"
    (tiled,) = tile_slides([path], tmp_path / "s.zarr", progress=Silent()).slides
    assert tiled.store_bytes <= 1.45 * tiled.source_bytes
    assert far_from_mean(tmp_path / "s.zarr") <= 1


def test_coarser_levels_have_the_quality_that_is_asked_for(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2100, 600, 3), np.uint8), photometric="rgb",
                     compression="jpeg", tile=(256, 256), metadata=None)  # fmt: skip
    tile_slides([path], tmp_path / "s.zarr", codec=Codec(quality=80), progress=Silent())
    (store,) = open_collection(tmp_path / "s.zarr")
    assert [array.encoding.loss for array in store.image.arrays] == [None, 97, 80]


def test_one_of_several_images_is_tiled(tmp_path):
    path, out = tmp_path / "a.tif", tmp_path / "s.zarr"
    with tifffile.TiffWriter(path) as tiff:
        for pixels in (RGB, RGB[::-1, :170]):
            tiff.write(np.ascontiguousarray(pixels), tile=(64, 64), metadata=None)
    tile_slides([path], out, opening=OpenOptions(scene="2"), progress=Silent())
    (store,) = open_collection(out)
    assert (store.name, store.pyramid.extent.width) == ("a", 170)
    assert store.attributes["scene"] == 2
    assert verify_slide(store, path).pixels > 0
    with pytest.raises(StoreError, match="differs in scene"):
        tile_slides([path], out, opening=OpenOptions(scene="1"), progress=Silent())
