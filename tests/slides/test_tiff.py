"""TIFF slides: pixels by position, real files against tifffile, and files that are damaged."""

import logging
import re

import numpy as np
import pytest
import tifffile

from tests.makers.coordinates import coordinate_pixels, write_coordinate_tiff
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.slides import NotCopyable, TileStreams, open_slide
from wsi_seg.testing.conformance import check_slide

EXTENTS = (Extent(height=203, width=333), Extent(height=81, width=133), Extent(height=41, width=66))


@pytest.fixture(autouse=True)
def _quiet_tifffile(monkeypatch):
    monkeypatch.setattr(logging.getLogger("tifffile"), "disabled", True)


def whole(extent, level=0):
    return extent.region(level)


def read_all(slide):
    return [slide.read(whole(extent, i)) for i, extent in enumerate(slide.pyramid.extents)]


@pytest.mark.parametrize("codec", ["raw", "deflate", "lzw", "zstd", "jpeg2000", "webp"])
@pytest.mark.parametrize("tile_px", [64, 48, None])
def test_pixels_are_where_they_say(tmp_path, codec, tile_px):
    path = tmp_path / "slide.tif"
    write_coordinate_tiff(path, extents=EXTENTS, codec=codec, tile_px=tile_px)
    levels = [coordinate_pixels(whole(extent, i), extent) for i, extent in enumerate(EXTENTS)]
    check_slide(path, levels)


@pytest.mark.parametrize("layout", ["pages", "subifds", "svs"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_levels_and_mpp_of_every_layout(tmp_path, layout, bigtiff):
    path = tmp_path / "slide.tif"
    expected = write_coordinate_tiff(
        path, extents=EXTENTS, layout=layout, bigtiff=bigtiff, mpp=0.273, codec="jpeg"
    )
    with open_slide(path) as slide:
        assert slide.pyramid.extents == expected.extents
        assert slide.pyramid.mpp == pytest.approx(0.273, rel=1e-3)
        assert slide.name == "slide"
        assert all(isinstance(slide.streams(i), TileStreams) for i in range(3))
    with open_slide(path, mpp=2.0) as slide:
        assert (slide.pyramid.mpp, slide.mpp_source) == (2.0, "option")


def write_samples(path, samples, **options):
    tifffile.imwrite(path, samples, metadata=None, **options)
    with open_slide(path) as slide:
        return slide.read(whole(slide.pyramid.extent)), slide.streams(0)


def ramp(dtype, shape):
    return (np.arange(np.prod(shape)) * 37 % (np.iinfo(dtype).max + 1)).reshape(shape).astype(dtype)


def test_kinds_of_colour_become_rgb(tmp_path):
    path = tmp_path / "a.tif"
    grey = ramp(np.uint8, (31, 45))
    found, streams = write_samples(path, grey, tile=(16, 16), photometric="minisblack")
    assert np.array_equal(found, np.repeat(grey[:, :, None], 3, 2))
    assert isinstance(streams, TileStreams)
    assert streams.samples == 1
    found, _ = write_samples(path, grey, photometric="miniswhite")
    assert np.array_equal(found[:, :, 1], 255 - grey)
    deep = ramp(np.uint16, (31, 45, 3))
    found, _ = write_samples(path, deep, photometric="rgb")
    assert np.array_equal(found, np.rint(deep / 257).astype(np.uint8))
    planes = ramp(np.uint8, (3, 31, 45))
    found, _ = write_samples(
        path, planes, photometric="rgb", planarconfig="separate", tile=(16, 16)
    )
    assert np.array_equal(found, np.moveaxis(planes, 0, -1))
    palette = ramp(np.uint16, (3, 256))
    found, _ = write_samples(path, grey, photometric="palette", colormap=palette)
    assert np.array_equal(found, (palette.T >> 8)[grey])
    alpha = ramp(np.uint8, (31, 45, 4)) | 1
    found, streams = write_samples(
        path, alpha, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16)
    )
    assert np.array_equal(found, alpha[:, :, :3])
    assert isinstance(streams, TileStreams)
    assert streams.samples == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"photometric": "miniswhite"}, "MINISWHITE colours"),
        ({"photometric": "minisblack", "tile": None}, "strips"),
        ({"photometric": "palette", "colormap": ramp(np.uint16, (3, 256))}, "PALETTE colours"),
    ],
)
def test_grey_that_cannot_be_copied_says_why(tmp_path, options, reason):
    _, streams = write_samples(
        tmp_path / "a.tif", ramp(np.uint8, (31, 45)), **{"tile": (16, 16), **options}
    )
    assert streams == NotCopyable(reason)


def test_cmyk_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(np.uint8, (8, 8, 4)), photometric="separated")
    with pytest.raises(UnsupportedSlideError, match="SEPARATED"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("resolution", [(0, 0), (200_400_800, 200_400_800), (72 / 2.54,) * 2])
def test_implausible_resolution_is_unknown_and_says_so(tmp_path, caplog, resolution):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, ramp(np.uint8, (8, 8, 3)), photometric="rgb", resolution=resolution,
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    assert open_slide(path).pyramid.mpp is None
    found = re.findall(
        r"mpp is unknown: got (\S+) um per pixel .*expected 0\.01 to 20", caplog.text
    )
    assert found == ([f"{10_000 / resolution[0]:.3g}"] if resolution[0] else [])


def test_ome_states_its_own_mpp(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}  # fmt: skip
    tifffile.imwrite(path, ramp(np.uint8, (8, 8, 3)), photometric="rgb", metadata=metadata)
    slide = open_slide(path)
    assert (slide.pyramid.mpp, slide.mpp_source, slide.name) == (0.25, "ome", "a")


def test_every_truncation_is_refused_or_read(tmp_path):
    path = tmp_path / "a.tif"
    write_coordinate_tiff(path, extents=(Extent(height=70, width=90),), codec="deflate")
    data = path.read_bytes()
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 97)):
        path.write_bytes(data[:length])
        with pytest.raises(SlideError) as caught:
            read_all(open_slide(path))
        refused += str(path) in str(caught.value)
    assert refused > 90


def test_a_text_file_named_tif(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("not a slide")
    with pytest.raises(SlideError, match=r"notes\.tif"):
        open_slide(path)


def tiffs(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".tif", ".tiff", ".svs"})


def test_hostile_files_give_pixels_or_a_slide_error(shared_data):
    for path in tiffs(shared_data / "hostile-tiff"):
        try:
            levels = read_all(open_slide(path))
        except SlideError as error:
            message = str(error)
        else:
            _require_like_tifffile(path, levels)
            continue
        assert path.name in message
        assert "\n" not in message


def test_real_slides_equal_tifffile(shared_data):
    for path in tiffs(shared_data / "slides-small"):
        _require_like_tifffile(path, read_all(open_slide(path)))


def _require_like_tifffile(path, levels):
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        turned = int(tiff.pages.first.tags.valueof(274) or 1) != 1
        if turned or levels[0].shape[:2] != series.keyframe.shape[:2]:
            return  # tifffile turns nothing, and goes by the order of pages
        for found, level in zip(levels, series.levels, strict=True):
            expected = level.asarray()
            plain = level.keyframe.photometric in {1, 2, 6} and expected.dtype == np.uint8
            if not plain:
                continue
            if series.axes == "SYX":
                expected = np.moveaxis(expected, 0, -1)
            if series.axes == "YX":
                expected = np.repeat(expected[:, :, None], 3, axis=2)
            if level.keyframe.extrasamples and expected.shape[2] == 4:
                # Clear pixels are white.
                expected = np.where(expected[:, :, 3:] == 0, 255, expected)
            assert np.array_equal(found, expected[:, :, :3]), path.name
