"""Streams without what they say besides their pixels."""

import io

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsi_seg.codestreams.metadata import without_comments

SECRET = b"Jane Doe 1970-01-01"
PIXELS = (np.arange(64 * 64 * 3) * 37 % 251).astype(np.uint8).reshape(64, 64, 3)


def segment(marker, text=SECRET):
    return bytes([0xFF, marker]) + (len(text) + 2).to_bytes(2, "big") + text


def box(kind, text=SECRET):
    return (len(text) + 8).to_bytes(4, "big") + kind + text


def jpeg():
    plain = imagecodecs.jpeg8_encode(PIXELS)
    extra = segment(0xFE) + segment(0xE1, b"Exif\0\0" + SECRET) + segment(0xED) + segment(0xE2)
    return plain, plain[:2] + extra + plain[2:]


def jpeg2k():
    plain = imagecodecs.jpeg2k_encode(PIXELS, codecformat="J2K")
    end_of_size = 4 + int.from_bytes(plain[4:6], "big")
    return plain, plain[:end_of_size] + segment(0x64, b"\0\1" + SECRET) + plain[end_of_size:]


def jp2():
    plain = imagecodecs.jpeg2k_encode(PIXELS, codecformat="JP2")
    signature = 12 + int.from_bytes(plain[12:16], "big")  # with the file type behind it
    return plain, plain[:signature] + box(b"xml ") + box(b"uuid") + plain[signature:]


def webp():
    plain, marked = io.BytesIO(), io.BytesIO()
    Image.fromarray(PIXELS).save(plain, "webp", lossless=True)
    Image.fromarray(PIXELS).save(
        marked, "webp", lossless=True, exif=b"Exif\0\0" + SECRET, xmp=SECRET, icc_profile=SECRET
    )
    return plain.getvalue(), marked.getvalue()


def jpegxl():
    plain = imagecodecs.jpegxl_encode(PIXELS, lossless=True, usecontainer=True)
    signature = 12 + int.from_bytes(plain[12:16], "big")
    return plain, plain[:signature] + box(b"Exif") + box(b"xml ") + plain[signature:]


@pytest.mark.parametrize(
    ("kind", "streams", "decode"),
    [
        ("jpeg", jpeg, imagecodecs.jpeg8_decode),
        ("jpeg2k", jpeg2k, imagecodecs.jpeg2k_decode),
        ("jpeg2k", jp2, imagecodecs.jpeg2k_decode),
        ("webp", webp, imagecodecs.webp_decode),
        ("jpegxl", jpegxl, imagecodecs.jpegxl_decode),
    ],
)
def test_comments_go_and_pixels_stay(kind, streams, decode):
    plain, marked = streams()
    assert SECRET in marked
    found = without_comments(marked, kind)
    assert SECRET not in found
    assert np.array_equal(decode(found), decode(plain))
    assert np.array_equal(decode(without_comments(plain, kind)), decode(plain))


def test_a_stream_without_comments_is_not_copied():
    plain, _ = jpeg()
    assert without_comments(plain, "jpeg") is plain
    assert without_comments(plain, "deflate") is plain


@given(
    st.binary(max_size=200),
    st.sampled_from(["jpeg", "jpeg2k", "webp", "jpegxl", "raw"]),
    st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f", b"RIFF\0\0\0\0WEBPVP8X", b"\0\0\0\x0cjP  "]),
)
def test_any_bytes_are_survived(data, kind, head):
    assert len(without_comments(head + data, kind)) <= len(head + data)
