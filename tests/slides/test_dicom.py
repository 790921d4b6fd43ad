"""DICOM: whole slides in tiles, plain images, and files that are neither."""

import imagecodecs
import numpy as np
import openslide
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless

from tests.makers.coordinates import coordinate_pixels
from tests.makers.dicoms import write_dicom_image, write_dicom_level
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.slides import open_slide
from wsi_seg.testing.conformance import check_slide

EXTENTS = (Extent(height=203, width=333), Extent(height=81, width=133))
CT = "1.2.840.10008.5.1.4.1.1.2"


def whole(extent, level=0):
    return extent.region(level)


LEVELS = [coordinate_pixels(whole(extent, i), extent) for i, extent in enumerate(EXTENTS)]


def write_slide(folder, **options):
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(LEVELS):
        mpp = 0.25 * EXTENTS[0].width / EXTENTS[number].width
        path = folder / f"level-{number}.dcm"
        write_dicom_level(path, pixels, number=number, mpp=mpp, **options)
    marker = np.full((40, 50, 3), 77, np.uint8)
    for number, flavour in enumerate(("LABEL", "OVERVIEW", "THUMBNAIL"), start=10):
        write_dicom_level(folder / f"{flavour}.dcm", marker, number=number, flavour=flavour)


@pytest.mark.parametrize("frames", ["raw", "jpeg2000"])
def test_levels_of_one_series_are_one_slide(tmp_path, frames):
    write_slide(tmp_path / "slide.7", frames=frames)
    check_slide(tmp_path / "slide.7", LEVELS)
    check_slide(tmp_path / "slide.7" / "level-1.dcm", LEVELS)
    with open_slide(tmp_path / "slide.7") as slide:
        assert slide.name == "slide.7"
        assert slide.pyramid.mpp == pytest.approx(0.25)
        assert slide.mpp_source == "dicom"
        assert slide.native_block(0) == Extent(height=48, width=64)
    assert open_slide(tmp_path / "slide.7", mpp=3).pyramid.mpp == 3


def test_jpeg_frames_equal_openslide(tmp_path):
    write_slide(tmp_path / "a", frames="jpeg")
    slide = open_slide(tmp_path / "a")
    found = slide.read(whole(EXTENTS[0]))
    theirs = openslide.OpenSlide(tmp_path / "a" / "level-0.dcm")
    width, height = theirs.dimensions
    expected = np.asarray(theirs.read_region((0, 0), 0, (width, height)))[..., :3]
    assert np.array_equal(found, expected)


def test_sparse_frames_are_where_they_say_and_gaps_are_white(tmp_path):
    extent = EXTENTS[0]
    kept = [29, 7, 8, 0]
    write_dicom_level(tmp_path / "a.dcm", LEVELS[0], number=0, sparse=kept)
    expected = np.full_like(LEVELS[0], 255)
    for index in kept:
        row, column = divmod(index, -(-extent.width // 64))
        place = slice(row * 48, row * 48 + 48), slice(column * 64, column * 64 + 64)
        expected[place] = LEVELS[0][place]
    check_slide(tmp_path / "a.dcm", [expected])


def test_a_level_in_parts_is_joined(tmp_path):
    half = 12
    for part, numbers in enumerate((range(half), range(half, 30))):
        path = tmp_path / f"{part}.dcm"
        write_dicom_level(path, LEVELS[0], number=part, sparse=numbers)
    check_slide(tmp_path, LEVELS[:1])
    write_dicom_level(tmp_path / "2.dcm", LEVELS[0], number=2, sparse=[3])
    with pytest.raises(UnsupportedSlideError, match="two frames at one position"):
        open_slide(tmp_path)


def test_labels_and_two_slides_in_a_folder_are_refused(tmp_path):
    write_slide(tmp_path)
    with pytest.raises(SlideError, match="label, overview or thumbnail"):
        open_slide(tmp_path / "LABEL.dcm")
    write_dicom_level(tmp_path / "other.dcm", LEVELS[0], number=0, series=2)
    with pytest.raises(SlideError, match="2 DICOM slides"):
        open_slide(tmp_path)
    assert len(open_slide(tmp_path / "other.dcm").pyramid.extents) == 1


def test_frames_without_places_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom_level(path, LEVELS[0], number=0)
    header = dcmread(path)
    del header.DimensionOrganizationType
    header.save_as(path)
    with pytest.raises(UnsupportedSlideError, match="does not state the positions of its frames"):
        open_slide(path)


def test_positions_for_other_frames_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom_level(path, LEVELS[0], number=0, sparse=[0, 1, 2])
    header = dcmread(path)
    header.NumberOfFrames = 1
    header.save_as(path)
    with pytest.raises(SlideError, match="positions of 3 frames; expected 1"):
        open_slide(path)


def ramp(dtype, shape=(45, 61)):
    span = np.iinfo(dtype)
    return np.linspace(span.min, span.max, np.prod(shape)).astype(dtype).reshape(shape)


def grey(values, low, high):
    shown = np.rint(((values - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(shown[:, :, None], 3, axis=2)


def test_radiographs_are_shown_as_stated(tmp_path):
    path = tmp_path / "cr.dcm"
    stored = ramp(np.uint8)
    write_dicom_image(path, stored)
    check_slide(path, [np.repeat(stored[:, :, None], 3, 2)])
    write_dicom_image(path, stored, colours="MONOCHROME1")
    check_slide(path, [np.repeat(255 - stored[:, :, None], 3, 2)])
    deep = ramp(np.uint16) >> 4
    spacing: dict[str, object] = {"ImagerPixelSpacing": [0.2, 0.2]}
    write_dicom_image(path, deep, bits=12, attributes=spacing)
    check_slide(path, [grey(deep, 0, 4095)], mpp=200)
    spacing["PixelSpacing"] = [0.1, 0.1]
    window: dict[str, object] = {"WindowCenter": [1000, 7], "WindowWidth": [401, 8]}
    write_dicom_image(path, deep, bits=12, attributes=spacing | window)
    check_slide(path, [grey(deep, 799.5, 1199.5)], mpp=100)


def test_ct_values_are_rescaled_to_hounsfield_units(tmp_path):
    path = tmp_path / "ct.dcm"
    stored = ramp(np.int16)
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1024, "Modality": "CT"}
    write_dicom_image(path, stored, sop_class=CT, attributes=rescale)
    values = stored * 2.0 - 1024
    check_slide(path, [grey(values, -1200, 600)])
    rescale["Modality"] = "MR"
    write_dicom_image(path, stored, sop_class=CT, attributes=rescale)
    check_slide(path, [grey(values, -65536 - 1024, 65534 - 1024)])


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        ("1.2.840.10008.1.2.4.90", lambda px: imagecodecs.jpeg2k_encode(px, codecformat="J2K")),
        ("1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode),
    ],
)
def test_every_lossless_compression(tmp_path, syntax, encode):
    path = tmp_path / "a.dcm"
    stored = ramp(np.uint16) >> 4
    write_dicom_image(path, stored, bits=12)
    header = dcmread(path)
    header.PixelData = encapsulate([bytes(encode(stored))])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.save_as(path)
    check_slide(path, [grey(stored, 0, 4095)])


def test_run_lengths(tmp_path):
    path = tmp_path / "a.dcm"
    stored = ramp(np.uint16)
    write_dicom_image(path, stored)
    header = dcmread(path)
    header.compress(RLELossless)
    header.save_as(path)
    check_slide(path, [grey(stored, 0, 65535)])


def test_bits_that_do_not_count_are_dropped(tmp_path):
    stored = ramp(np.uint16) >> 6
    write_dicom_image(tmp_path / "a.dcm", stored | 0xF400, bits=10)
    check_slide(tmp_path / "a.dcm", [grey(stored, 0, 1023)])


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom_level(path, LEVELS[1], number=0, frames="jpeg2000")
    data = path.read_bytes()
    whole_region = whole(EXTENTS[1])
    for length in range(0, len(data) - 16, len(data) // 61):
        path.write_bytes(data[:length])
        with pytest.raises(SlideError, match=r"a\.dcm"):
            open_slide(path).read(whole_region)


def test_real_files_are_read_like_pydicom_or_refused(shared_data):
    read = set()
    for path in sorted((shared_data / "dicom").rglob("*.dcm")):
        try:
            slide = open_slide(path)
            extent = slide.pyramid.extent
            found = slide.read(whole(extent))
        except SlideError:
            continue
        read.add(path.name)
        header = dcmread(path)
        if header.SamplesPerPixel == 3 and header.BitsAllocated == 8:
            expected = header.pixel_array[: extent.height, : extent.width]
            if "YBR_FULL" not in header.PhotometricInterpretation:
                assert np.array_equal(found, expected), path.name
    assert {"693_J2KR.dcm", "RG3_J2KI.dcm", "US1_J2KR.dcm", "boxes_0.dcm"} <= read


def test_a_real_slide_equals_openslide(shared_data):
    path = shared_data / "dicom" / "openslide" / "boxes_0.dcm"
    theirs = openslide.OpenSlide(path)
    width, height = theirs.dimensions
    found = open_slide(path).read(whole(Extent(height=height, width=width)))
    assert np.array_equal(
        found, np.asarray(theirs.read_region((0, 0), 0, (width, height)))[..., :3]
    )
