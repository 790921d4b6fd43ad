from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.coordinates import LOSSY, coordinate_pixels, halved, write_coordinate_tiff
from tests.makers.strategies import extents, regions
from wsi_seg.geometry import Extent, Region


def whole(extent: Extent, level: int = 0) -> Region:
    return extent.region(level)


@given(st.data(), extents(), st.integers(0, 3))
def test_a_part_is_cut_from_the_whole(data, extent, level):
    region = data.draw(regions(extent, level=level))
    for smooth in (False, True):
        full = coordinate_pixels(whole(extent, level), extent, smooth=smooth)
        part = coordinate_pixels(region, extent, smooth=smooth)
        np.testing.assert_array_equal(part, full[region.slices])


def test_no_two_pixels_of_three_levels_are_alike():
    extent = Extent(height=97, width=131)
    levels = [coordinate_pixels(whole(extent, level), extent) for level in range(3)]
    colours = np.concatenate([level.reshape(-1, 3) for level in levels])
    assert len(np.unique(colours, axis=0)) == len(colours)


@pytest.mark.parametrize("tile_px", [64, None])
@pytest.mark.parametrize("codec", ["raw", "deflate", "lzw", "zstd", "jpeg", "jpeg2000", "webp"])
def test_every_codec_gives_its_pixels_back(tmp_path: Path, codec, tile_px):
    sizes = halved(Extent(height=211, width=157), 3, downsample=2.6)
    pyramid = write_coordinate_tiff(
        tmp_path / "a.tif", extents=sizes, codec=codec, tile_px=tile_px, bigtiff=True
    )
    assert pyramid.mpp == 0.5
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
        assert len(tiff.pages) == 3
        for level, extent in enumerate(pyramid.extents):
            found = tiff.pages[level].asarray().astype(int)
            smooth = codec in LOSSY
            expected = coordinate_pixels(whole(extent, level), extent, smooth=smooth)
            assert np.abs(found - expected).max() <= (8 if smooth else 0)


@pytest.mark.parametrize("layout", ["pages", "subifds", "svs"])
def test_tifffile_sees_one_pyramid(tmp_path: Path, layout):
    sizes = halved(Extent(height=301, width=415), 3)
    write_coordinate_tiff(tmp_path / "a.tif", extents=sizes, layout=layout, mpp=0.25)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_svs == (layout == "svs")
        levels = tiff.series[0].levels
        assert [level.shape[:2] for level in levels] == [(e.height, e.width) for e in sizes]
        if layout == "svs":
            assert "MPP = 0.2500" in tiff.pages.first.description
            assert [series.name for series in tiff.series[1:]] == ["Thumbnail", "Label", "Macro"]


def test_resolution_is_left_out_on_request(tmp_path: Path):
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=33, width=20)], mpp=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.tags["XResolution"].value == (1, 1)
