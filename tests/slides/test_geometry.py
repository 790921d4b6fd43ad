"""How pixels are placed: orientation, sizes along both axes, decimal commas, odd names."""

import math

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from tests.makers.coordinates import write_coordinate_tiff
from tests.makers.dicoms import write_dicom_image, write_dicom_level
from tests.makers.omezarrs import write_ome_zarr
from tests.slides.checks import check_names, check_turned, check_unlike
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import NotCopyable, open_slide
from wsi_seg.slides.orientation import stored_region, upright, upright_extent
from wsi_seg.slides.resolution import parse_um
from wsi_seg.testing.conformance import check_slide

RGB = (np.arange(70 * 90 * 3) * 37 % 251).astype(np.uint8).reshape(70, 90, 3)
ORIENTATION = 274


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_region_of_the_upright_picture(orientation, height, width, data):
    stored = np.arange(height * width).reshape(height, width)
    shown = upright(stored, orientation)
    extent = upright_extent(Extent(height=height, width=width), orientation)
    assert shown.shape == (extent.height, extent.width)
    y, x = (data.draw(st.integers(0, side - 1)) for side in shown.shape)
    region = Region(
        level=0, y=y, x=x, height=data.draw(st.integers(1, extent.height - y)),
        width=data.draw(st.integers(1, extent.width - x)),
    )  # fmt: skip
    found = stored_region(region, Extent(height=height, width=width), orientation)
    assert np.array_equal(upright(stored[found.slices], orientation), shown[region.slices])


def tagged(orientation):
    return {"extratags": [(ORIENTATION, "H", 1, orientation, True)], "metadata": None}


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (32, 16)},
        {"rowsperstrip": 16},
        {"rowsperstrip": 70},
        {"tile": (32, 16), "compression": "zlib", "predictor": True},
        {"tile": (32, 32), "bigtiff": True},
        {"tile": (32, 32), "byteorder": ">"},
    ],
    ids=str,
)
def test_every_orientation_of_tiff(tmp_path, options):
    def write(path, pixels, orientation):
        tifffile.imwrite(path, pixels, photometric="rgb", **options, **tagged(orientation))

    check_turned(write, tmp_path / "a.tif")


def test_planes_and_ome_are_turned_too(tmp_path):
    def write_planes(path, pixels, orientation):
        tifffile.imwrite(
            path, np.moveaxis(pixels, 2, 0), photometric="rgb", planarconfig="separate",
            tile=(32, 16), **tagged(orientation),
        )  # fmt: skip

    def write_ome(path, pixels, orientation):
        tifffile.imwrite(
            path, pixels, photometric="rgb", tile=(32, 16), metadata={"axes": "YXS"},
            extratags=tagged(orientation)["extratags"], ome=True,
        )  # fmt: skip

    check_turned(write_planes, tmp_path / "a.tif")
    check_turned(write_ome, tmp_path / "a.ome.tif")


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_every_orientation_of_pictures(tmp_path, kind):
    def write(path, pixels, orientation):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        Image.fromarray(pixels).save(path, exif=exif, lossless=True)

    check_turned(write, tmp_path / f"a.{kind}")


@pytest.mark.parametrize("levels_too", [True, False])
@pytest.mark.parametrize("orientation", [3, 6])
def test_levels_are_turned_with_their_slide(tmp_path, orientation, levels_too):
    levels = [RGB, np.ascontiguousarray(RGB[::2, ::2])]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for number, level in enumerate(levels):
            stored = np.ascontiguousarray(upright(level, 8 if orientation == 6 else orientation))
            tag = tagged(orientation) if levels_too or number == 0 else {"metadata": None}
            tiff.write(stored, tile=(32, 16), photometric="rgb", subfiletype=min(number, 1), **tag)
    check_slide(tmp_path / "a.tif", levels)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.streams(0) == NotCopyable(f"orientation {orientation}")
    assert slide.native_block(0) == (
        Extent(height=16, width=32) if orientation == 6 else Extent(height=32, width=16)
    )


def ome(x, y):
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="90" '
        f'SizeY="70" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="{x}" PhysicalSizeY="{y}">'
        '<Channel ID="Channel:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels>'
        "</Image></OME>"
    )


def write_tiff(path, description=None, **more):
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(32, 32), metadata=None,
                     description=description, **more)  # fmt: skip
    return path


VIPS = "<property><name>openslide.mpp-{}</name><value type='x'>{}</value></property>"


def test_px_that_are_not_square_are_refused_in_every_format(tmp_path):
    per_cm = {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
    check_unlike(write_tiff(tmp_path / "tags.tif", **per_cm), x=0.25, y=0.5)
    per_inch = {"resolution": (101_600, 50_800), "resolutionunit": "INCH"}
    check_unlike(write_tiff(tmp_path / "inch.tif", **per_inch), x=0.25, y=0.5)
    check_unlike(write_tiff(tmp_path / "a.ome.tif", ome("0.25", "0.5").encode()), x=0.25, y=0.5)
    both = f"<image>{VIPS.format('x', 0.25)}{VIPS.format('y', 0.5)}</image>"
    check_unlike(write_tiff(tmp_path / "vips.tif", both), x=0.25, y=0.5)
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(path, RGB, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    check_unlike(path, x=0.25, y=0.5)
    write_ome_zarr(tmp_path / "a.zarr", [RGB], mpp=(0.5, 0.25))
    check_unlike(tmp_path / "a.zarr", x=0.25, y=0.5)
    write_dicom_level(tmp_path / "a.dcm", RGB, number=0)
    header = dcmread(tmp_path / "a.dcm")
    measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [0.0005, 0.00025]  # between rows, between columns
    header.save_as(tmp_path / "a.dcm")
    check_unlike(tmp_path / "a.dcm", x=0.25, y=0.5)
    spacing = {"PixelSpacing": [0.2, 0.1]}
    write_dicom_image(tmp_path / "cr.dcm", RGB[..., 0], attributes=spacing)
    check_unlike(tmp_path / "cr.dcm", x=100, y=200)


@pytest.mark.parametrize("px_per_cm", [(41_231, 41_212), (40_000, 40_500)])
def test_px_that_are_nearly_square_need_no_word(tmp_path, px_per_cm, caplog):
    path = tmp_path / "a.tif"
    write_tiff(path, resolution=px_per_cm, resolutionunit="CENTIMETER")
    mean = sum(10_000 / count for count in px_per_cm) / 2
    check_slide(path, [RGB], mpp=mean)
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "um"),
    [("0.25", 0.25), ("0,25", 0.25), (" 0,2500 ", 0.25), (",5", 0.5), ("2,5e-1", 0.25)],
)
def test_numbers_as_people_write_them(text, um):
    assert parse_um(text) == um
    assert parse_um(text, "mm") == um * 1000
    assert parse_um(text, "nm") == pytest.approx(um / 1000)


@pytest.mark.parametrize(
    ("unit", "um"),
    [("nanometres", 1e-3), ("Micrometers", 1), ("µm", 1), ("microns", 1), ("millimetre", 1e3),
     ("metres", 1e6), ("inches", 25_400), ("thou", 25.4), ("Å", 1e-4), ("angstroms", 1e-4)],
)  # fmt: skip
def test_units_as_people_write_them(tmp_path, unit, um):
    assert parse_um("0,5", unit) == pytest.approx(0.5 * um)
    write_ome_zarr(tmp_path / "a.zarr", [RGB], mpp=0.5 / um, unit=unit)
    assert open_slide(tmp_path / "a.zarr").pyramid.mpp == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("unit", "mpp"),
    [("INCH", 1.27), ("CENTIMETER", 0.5), ("MILLIMETER", 0.05), ("NONE", None)],
)
def test_units_of_resolution_tags(tmp_path, unit, mpp):
    path = write_tiff(tmp_path / "a.tif", resolution=(20_000, 20_000), resolutionunit=unit)
    assert open_slide(path).pyramid.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_orientations_that_do_not_exist_turn_nothing(tmp_path, orientation):
    tags = tagged(orientation)["extratags"]
    check_slide(write_tiff(tmp_path / "a.tif", extratags=tags), [RGB])


@pytest.mark.parametrize("text", ["", "1,234.5", "1.234,5", "1,2,3", "?", "pixel"])
def test_what_is_no_number(text):
    found = parse_um(text)
    assert found is not None
    assert math.isnan(found)


APERIO = "Aperio Image Library v12\r\n90x70 (32x32)|AppMag = 20|MPP = {}"


def test_decimal_commas_in_every_format(tmp_path):
    dpi = {"resolution": (72, 72), "resolutionunit": "INCH"}
    both = f"<image>{VIPS.format('x', '0,5')}{VIPS.format('y', '0,5')}</image>"
    for name, text, more in (
        ("a.svs", APERIO.format("0,5000"), {}),
        ("b.svs", APERIO.format("0,5000"), dpi),
        ("c.ome.tif", ome("0,5", "0,5").encode(), dpi),
        ("d.tif", both, dpi),
    ):
        check_slide(write_tiff(tmp_path / name, text, **more), [RGB], mpp=0.5)


def with_commas(path):
    """Write the numbers that a DICOM file holds as text with decimal commas."""
    data = path.read_bytes()
    for number in (b"0.0005", b"0.25", b"40.5", b"80.5", b"1.5", b"-2.5"):
        data = data.replace(number, number.replace(b".", b","))
    path.write_bytes(data)
    return path


def test_decimal_commas_in_dicom(tmp_path):
    write_dicom_level(tmp_path / "a.dcm", RGB, number=0)
    check_slide(with_commas(tmp_path / "a.dcm"), [RGB], mpp=0.5)
    assert b"0,0005" in (tmp_path / "a.dcm").read_bytes()
    grey = RGB[..., 0]
    shown = {}
    for name in ("points", "commas"):
        (tmp_path / name).mkdir()
        for z in range(2):
            write_dicom_image(
                tmp_path / name / f"{z}.dcm", grey, number=z, attributes={
                    "PixelSpacing": [0.25, 0.25], "RescaleSlope": 1.5, "RescaleIntercept": -2.5,
                    "WindowCenter": 40.5, "WindowWidth": 80.5,
                    "ImagePositionPatient": [0, 0, 2.5 - z],
                    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                },
            )  # fmt: skip
            if name == "commas":
                with_commas(tmp_path / name / f"{z}.dcm")
        with open_slide(tmp_path / name / "z0001") as slide:
            assert slide.pyramid.mpp == pytest.approx(250)
            shown[name] = slide.read(slide.pyramid.extent.region())
    assert np.array_equal(shown["points"], shown["commas"])


def test_a_size_that_is_a_thousand_times_off_is_shown_as_stated(tmp_path, caplog):
    for number, (stated, um) in enumerate((("499", 499), ("0.000499", 0.000499))):
        caplog.clear()
        path = write_tiff(tmp_path / f"{number}.svs", APERIO.format(stated))
        with open_slide(path) as slide:
            assert slide.pyramid.mpp == um
        assert f"{path}: states {um:g} um per pixel (aperio)" in caplog.text
        assert "--mpp" in caplog.text
    caplog.clear()
    open_slide(path, mpp=0.5)
    write_dicom_image(tmp_path / "cr.dcm", RGB[..., 0], attributes={"PixelSpacing": [0.1, 0.1]})
    assert open_slide(tmp_path / "cr.dcm").pyramid.mpp == pytest.approx(100)
    assert not caplog.text


def write_alone(path):
    """Write a DICOM slide that has no other level next to it."""
    for other in path.parent.iterdir():
        other.unlink()
    write_dicom_level(path, RGB, number=0)


def test_slides_of_any_name(tmp_path):
    extents = (Extent(height=70, width=90), Extent(height=35, width=45))
    check_names(lambda path: write_coordinate_tiff(path, extents=extents), tmp_path, ".tif")
    check_names(lambda path: Image.fromarray(RGB).save(path), tmp_path, ".png")
    check_names(lambda path: write_ome_zarr(path, [RGB]), tmp_path, ".zarr")
    (tmp_path / "d").mkdir()
    check_names(write_alone, tmp_path / "d", ".dcm")
