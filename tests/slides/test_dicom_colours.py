"""Each pair of a compression and a photometric interpretation of DICOM: right, or refused."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import UID

from tests.makers.dicoms import DICOM_TILE, write_dicom_level
from wsi_seg.codestreams.headers import jpeg2k_transforms
from wsi_seg.errors import UnsupportedSlideError
from wsi_seg.geometry import Region
from wsi_seg.slides import open_slide
from wsi_seg.slides.dicom_colours import CONVERTED, FAMILIES, is_supported

SIZE = (DICOM_TILE.height, DICOM_TILE.width)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]]
# Smooth, because JPEG halves chroma; unlike in all channels.
RGB = np.stack([249 - X, 180 - 2 * Y, 90 + Y + X], axis=2).astype(np.uint8)
PLAIN = [syntax for syntax, family in FAMILIES.items() if family == "plain"]
INTERPRETATIONS = (
    "MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT",
    "YBR_PARTIAL_420", "YBR_PARTIAL_422", "PALETTE COLOR", "HSV", "XYB",
)  # fmt: skip


def ycbcr(rgb):
    return np.asarray(Image.fromarray(rgb).convert("YCbCr"))


def jpeg(pixels, subsampling):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=97, subsampling=subsampling)
    return file.getvalue()


def encoded(family, colours, syntax):
    """One frame as DICOM wants it for this pair, and the RGB that it shows."""
    grey = colours.startswith("MONOCHROME")
    pixels = RGB[..., 0] if grey else RGB
    shown = np.repeat(pixels[..., None], 3, 2) if grey else RGB
    if colours == "MONOCHROME1":
        shown = 255 - shown
    stored = ycbcr(RGB) if colours in {"YBR_FULL", "YBR_FULL_422"} else pixels
    stored = np.ascontiguousarray(stored)
    if family == "plain":
        return stored.tobytes(), shown
    if family == "rle":
        options: dict[str, Any] = {
            "rows": SIZE[0], "columns": SIZE[1], "samples_per_pixel": 1 if grey else 3,
            "photometric_interpretation": "MONOCHROME2" if grey else "RGB", "bits_allocated": 8,
            "bits_stored": 8, "pixel_representation": 0, "number_of_frames": 1,
            "planar_configuration": 0, "pixel_keyword": "PixelData",
        }  # fmt: skip
        return RLELosslessEncoder.encode(stored, encoding_plugin="pydicom", **options), shown
    if family == "jpeg":
        if colours == "RGB":  # components are RGB, and nothing in the stream says so
            return bytes(imagecodecs.jpeg8_encode(pixels, level=97, colorspace="RGB",
                                                  outcolorspace="RGB")), shown  # fmt: skip
        return jpeg(pixels, 1 if colours == "YBR_FULL_422" else 0), shown
    if family == "lossless jpeg":
        space: dict[str, Any] = {} if grey else {"colorspace": "RGB", "outcolorspace": "RGB"}
        return bytes(imagecodecs.jpeg8_encode(stored, lossless=True, **space)), shown
    if family == "jpeg-ls":
        return bytes(imagecodecs.jpegls_encode(stored)), shown
    own = colours in {"YBR_ICT", "YBR_RCT"}
    if "201" <= syntax[-3:] <= "203":
        return bytes(imagecodecs.htj2k_encode(stored, rgb=own, reversible=True)), shown
    return bytes(
        imagecodecs.jpeg2k_encode(
            stored, codecformat="J2K", mct=own, reversible=colours != "YBR_ICT", level=0
        )
    ), shown


def write(path, data, syntax, colours, *, bits=8):
    write_dicom_level(path, RGB, number=0)
    header = dcmread(path)
    header.PhotometricInterpretation = colours
    grey = colours.startswith("MONOCHROME")
    header.SamplesPerPixel = 1 if grey or colours == "PALETTE COLOR" else 3
    if grey:
        del header.PlanarConfiguration
    header.BitsAllocated, header.BitsStored, header.HighBit = bits, bits, bits - 1
    uid = UID(syntax)
    header.file_meta.TransferSyntaxUID = uid
    header.PixelData = encapsulate([data]) if uid.is_encapsulated else data
    header["PixelData"].VR = "OB" if uid.is_encapsulated or bits == 8 else "OW"
    header["PixelData"].is_undefined_length = uid.is_encapsulated
    header.decode()
    little = uid.is_little_endian
    dcmwrite(
        path, header, implicit_vr=uid.is_implicit_VR, little_endian=little,
        enforce_file_format=little, force_encoding=not little,
    )  # fmt: skip
    return path


def read(path):
    return open_slide(path).read(Region(level=0, y=0, x=0, height=SIZE[0], width=SIZE[1]))


@pytest.mark.parametrize("colours", INTERPRETATIONS)
@pytest.mark.parametrize("syntax", FAMILIES)
def test_every_pair(tmp_path, syntax, colours):
    family = FAMILIES[syntax]
    path = tmp_path / "a.dcm"
    if colours not in CONVERTED[family]:
        write(path, RGB.tobytes(), syntax, colours)
        with pytest.raises(UnsupportedSlideError, match=f"{colours}, {family}"):
            open_slide(path)
        return
    data, shown = encoded(family, colours, syntax)
    found = read(write(path, data, syntax, colours)).astype(int)
    far = np.abs(found - shown)
    assert far.mean() < 1
    assert far.max() <= (8 if family == "jpeg" and "422" in colours else 3)


@pytest.mark.parametrize("name", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.94"])
def test_other_compressions_are_refused_by_their_name(tmp_path, name):
    path = write(tmp_path / "a.dcm", bytes(100), name, "RGB")
    with pytest.raises(UnsupportedSlideError, match=UID(name).name.split(" ")[0]):
        open_slide(path)


def test_a_codec_that_has_converted_is_trusted(tmp_path):
    """Headers that say YBR_FULL over a stream with its own transform: that was made from RGB."""
    for own in (False, True):
        stored = RGB if own else ycbcr(RGB)
        data = bytes(imagecodecs.jpeg2k_encode(stored, codecformat="J2K", mct=own, level=0))
        assert jpeg2k_transforms(data) is own
        path = write(tmp_path / "a.dcm", data, "1.2.840.10008.1.2.4.90", "YBR_FULL")
        assert np.abs(read(path).astype(int) - RGB).max() <= 3


def test_what_a_jpeg_stream_says_of_itself_counts(tmp_path):
    path = write(tmp_path / "a.dcm", jpeg(RGB, 0), "1.2.840.10008.1.2.4.50", "RGB")
    assert np.abs(read(path).astype(int) - RGB).mean() < 1


def test_no_transform_is_found_in_what_is_no_stream():
    assert not jpeg2k_transforms(b"")
    assert not jpeg2k_transforms(b"\xff\x4f\xff\x51\x00")
    boxed = bytes(imagecodecs.jpeg2k_encode(RGB, codecformat="JP2", mct=True, level=0))
    assert jpeg2k_transforms(boxed)


@pytest.mark.parametrize("syntax", PLAIN[:2])
def test_chroma_of_16_bits_is_refused(tmp_path, syntax):
    deep = (ycbcr(RGB).astype(np.uint16) * 257).tobytes()
    path = write(tmp_path / "a.dcm", deep, syntax, "YBR_FULL", bits=16)
    with pytest.raises(UnsupportedSlideError, match="3 samples per pixel of 16 bits, YBR_FULL"):
        open_slide(path)
    assert is_supported("plain", "RGB", samples=3, stored=16)
    assert not is_supported("plain", "RGB", samples=1, stored=8)
