"""Tiles and strips that a file says were never written: white, or the value that it states."""

from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from pydicom import dcmread

from tests.makers.coordinates import coordinate_pixels, halved, write_coordinate_tiff
from tests.makers.dicoms import write_dicom_level
from tests.makers.omezarrs import write_ome_zarr
from tests.slides.checks import check_left_out
from tests.slides.tags import Tags
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import verify_slide
from wsi_seg.progress import Silent
from wsi_seg.slides import open_slide
from wsi_seg.slides.colour import cielab_to_rgb
from wsi_seg.store import open_collection
from wsi_seg.store.names import TISSUE
from wsi_seg.testing.conformance import check_slide

EXTENT = Extent(height=203, width=333)
EXTENTS = halved(EXTENT, 2)
TILE = 64
NODATA = 42113


def whole(level, extent):
    return Region(level=level, y=0, x=0, height=extent.height, width=extent.width)


LEVELS = [coordinate_pixels(whole(i, extent), extent) for i, extent in enumerate(EXTENTS)]


def tile_at(level, number):
    extent = EXTENTS[level]
    row, column = divmod(number, -(-extent.width // TILE))
    place = Region(level=level, y=row * TILE, x=column * TILE, height=TILE, width=TILE)
    return place.clip(extent)


def store_of(path, folder):
    tile_slides([path], folder, progress=Silent()).require_whole()
    (store,) = open_collection(folder)
    verify_slide(store, path)
    return store


@pytest.mark.parametrize("layout", ["pages", "subifds", "svs"])
@pytest.mark.parametrize("codec", ["raw", "deflate", "lzw", "zstd", "jpeg2000", "webp"])
def test_tiles_at_every_level(tmp_path, codec, layout):
    path = tmp_path / "a.tif"
    write_coordinate_tiff(path, extents=EXTENTS, codec=codec, layout=layout)
    missing = {0: (0, 5, 9, 23), 1: (1, 3)}
    second = 2 if layout == "svs" else 1  # behind the thumbnail
    with Tags(path) as tags:
        tags.leave_out(0, missing[0])
        tags.leave_out(second, missing[1])
    places = [tile_at(level, number) for level in missing for number in missing[level]]
    check_left_out(path, LEVELS, places)
    store = store_of(path, tmp_path / "s.zarr")
    for place in places:
        assert (store.image.read(place) == 255).all()


@pytest.mark.parametrize("smooth", ["ycbcr", "rgb", "minisblack"])
def test_jpeg_tiles_are_copied_and_the_others_white(tmp_path, smooth):
    path = tmp_path / "a.tif"
    pixels = np.full((192, 256, 3), 120, np.uint8)
    stored = pixels[..., 0] if smooth == "minisblack" else pixels
    tifffile.imwrite(path, stored, photometric=smooth, compression="jpeg", tile=(64, 64),
                     metadata=None)  # fmt: skip
    with open_slide(path) as slide:
        truth = slide.read(whole(0, slide.pyramid.extent))
    with Tags(path) as tags:
        tags.leave_out(0, (0, 11))
    store = store_of(path, tmp_path / "s.zarr")
    assert store.attributes["levels"][0]["encoding"] == "verbatim jpeg"
    found = store.image.read(whole(0, store.pyramid.extent))
    assert (found[:64, :64] == 255).all()
    assert (found[128:, 192:] == 255).all()
    assert np.array_equal(found[64:128], truth[64:128])
    plain: Any = zarr.open_array(str(store.path / "0"), mode="r")[:]
    assert np.array_equal(np.moveaxis(plain, 0, -1), found)


def test_a_place_without_bytes_is_left_out_too(tmp_path, caplog):
    path = tmp_path / "a.tif"
    write_coordinate_tiff(path, extents=EXTENTS[:1])
    with Tags(path) as tags:
        tags.put(0, 325, [0, *tags.get(0, 325)[1:]])
    check_left_out(path, LEVELS[:1], [tile_at(0, 0)])
    assert "1 tile without bytes in level 0" in caplog.text


def test_strips(tmp_path):
    path = tmp_path / "a.tif"
    write_coordinate_tiff(path, extents=EXTENTS[:1], tile_px=None)
    with Tags(path) as tags:
        tags.leave_out(0, (0, 12), tiles=False)
    places = [Region(level=0, y=y, x=0, height=h, width=333) for y, h in ((0, 16), (192, 11))]
    check_left_out(path, LEVELS[:1], places)


@pytest.mark.parametrize(
    ("photometric", "dtype"),
    [
        ("minisblack", np.uint8),
        ("miniswhite", np.uint8),
        ("minisblack", np.uint16),
        ("rgb", np.uint16),
        ("palette", np.uint8),
    ],
)
def test_every_model_of_colours(tmp_path, photometric, dtype):
    path = tmp_path / "a.tif"
    pixels = (np.arange(70 * 90 * 3) * 37 % 251).astype(dtype).reshape(70, 90, 3)
    more: dict[str, Any] = {
        "colormap": np.linspace(0, 65535, 768).astype(np.uint16).reshape(3, 256)
    }
    more["colormap"][:, 7] = 65535
    tifffile.imwrite(
        path, pixels if photometric == "rgb" else pixels[..., 0], photometric=photometric,
        tile=(32, 32), metadata=None, **(more if photometric == "palette" else {}),
    )  # fmt: skip
    with open_slide(path) as slide:
        truth = slide.read(whole(0, slide.pyramid.extent)).copy()
    with Tags(path) as tags:
        tags.leave_out(0, (4,))
    place = Region(level=0, y=32, x=32, height=32, width=32)
    check_left_out(path, [truth], [place])


def test_planes(tmp_path):
    path = tmp_path / "a.tif"
    planes = (np.arange(3 * 64 * 96) * 37 % 251).astype(np.uint8).reshape(3, 64, 96)
    truth = np.moveaxis(planes, 0, 2)
    place = Region(level=0, y=0, x=32, height=32, width=32)
    layouts: list[dict[str, Any]] = [
        {"photometric": "rgb", "planarconfig": "separate"},
        {"photometric": "minisblack"},
    ]
    for more in layouts:
        tifffile.imwrite(path, planes, tile=(32, 32), compression="zlib", metadata=None, **more)
        with Tags(path) as tags:
            if "planarconfig" in more:
                tags.leave_out(0, (1, 7, 13))
            else:
                for page in range(3):
                    tags.leave_out(page, (1,))
        check_left_out(path, [truth], [place])


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("255", 255), ("240", 240), (" 17 ", 17), ("7.0", 7), ("nan", 255), ("-9999", 255)],
)
def test_the_value_that_gdal_states(tmp_path, text, value):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate(LEVELS):
            # Only the first page states it, and speaks for the others.
            tags = [] if level else [(NODATA, "s", 0, text, True)]
            tiff.write(pixels, tile=(TILE, TILE), compression="zlib", photometric="rgb",
                       metadata=None, extratags=tags, subfiletype=min(level, 1))  # fmt: skip
    with Tags(path) as tags:
        tags.leave_out(0, (0, 7))
        tags.leave_out(1, (2,))
    places = [tile_at(0, 0), tile_at(0, 7), tile_at(1, 2)]
    check_left_out(path, LEVELS, places, value)
    store = store_of(path, tmp_path / "s.zarr")
    assert all((store.image.read(place) == value).all() for place in places)


def test_16_bit_values_are_scaled(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.full((64, 64, 3), 9000, np.uint16)
    tags = [(NODATA, "s", 0, "65535", True)]
    tifffile.imwrite(path, pixels, tile=(32, 32), photometric="rgb", metadata=None, extratags=tags)
    with Tags(path) as edited:
        edited.leave_out(0, (0,))
    place = Region(level=0, y=0, x=0, height=32, width=32)
    check_left_out(path, [np.full((64, 64, 3), 35, np.uint8)], [place])


def test_frames_of_dicom_have_the_colour_that_is_stated(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom_level(path, LEVELS[0], number=0, sparse=range(1, 30))
    place = Region(level=0, y=0, x=0, height=48, width=64)
    check_left_out(path, LEVELS[:1], [place])
    header = dcmread(path)
    for lab, grey in (([65535, 32896, 32896], 255), ([0, 32896, 32896], 0)):
        header.RecommendedAbsentPixelCIELabValue = lab
        header.save_as(path)
        check_left_out(path, LEVELS[:1], [place], grey)


def test_cielab_is_that_of_icc():
    assert cielab_to_rgb([65535, 32896, 32896]).tolist() == [255, 255, 255]
    grey = cielab_to_rgb([35138, 32896, 32896]).astype(int)  # L* of 53.6 is grey 128 of sRGB
    assert np.abs(grey - 128).max() <= 1
    red, green, blue = cielab_to_rgb([35000, 50000, 45000]).tolist()
    assert red > green > 0
    assert red > blue


@pytest.mark.parametrize("value", [0, 255, 17])
def test_chunks_of_ome_zarr_have_the_fill_value(tmp_path, value):
    root = tmp_path / "a.zarr"
    write_ome_zarr(root, LEVELS, axes="yxc", fill_value=value)
    for part in (root / "0" / "c" / "0" / "0").iterdir():
        part.unlink()
    check_left_out(root, LEVELS, [Region(level=0, y=0, x=0, height=64, width=48)], value)


def test_no_tissue_is_found_where_nothing_was_scanned(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.full((512, 512, 3), 243, np.uint8)
    pixels[64:300, 64:300] = (222, 150, 190)
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", tile=(64, 64),
                     metadata=None)  # fmt: skip
    with Tags(path) as tags:
        tags.leave_out(0, range(40, 64))
    store = store_of(path, tmp_path / "s.zarr")
    label = store.label(TISSUE)
    mask = label.read(whole(0, label.pyramid.extent))
    assert mask[100:250, 100:250].all()
    assert not mask[320:].any()


def test_a_store_with_left_out_tiles_is_a_slide_as_well(tmp_path):
    path = tmp_path / "a.tif"
    write_coordinate_tiff(path, extents=EXTENTS[:1])
    with Tags(path) as tags:
        tags.leave_out(0, (0,))
    store = store_of(path, tmp_path / "s.zarr")
    expected = LEVELS[0].copy()
    expected[:TILE, :TILE] = 255
    check_slide(store.path, [expected])
