import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from wsi_seg.store.codecs import Encoding
from wsi_seg.viewer.passthrough import browser_jpeg


def picture():
    y, x = np.mgrid[:96, :64]
    return np.stack([x * 3, y * 2, (x + y) % 256], axis=-1).astype(np.uint8)


def stream(*, rgb=False, drop=()):
    """JPEG of the picture, split into the segments to drop (with SOI and EOI) and the rest."""
    colours: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"} if rgb else {}
    data = bytes(imagecodecs.jpeg8_encode(picture(), level=90, **colours))
    kept, dropped, place = b"", b"", 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] in drop:
            dropped += data[place:end]
        else:
            kept += data[place:end]
        place = end
    return b"\xff\xd8" + kept + data[place:], b"\xff\xd8" + dropped + b"\xff\xd9"


def as_browser(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_a_complete_stream_is_passed_on_as_it_is():
    data, _ = stream()
    assert browser_jpeg(data, Encoding("jpeg")) == data


@pytest.mark.parametrize("rgb", [False, True])
def test_tables_and_colour_space_are_put_back(rgb):
    markers = {0xDB, 0xC4} | ({0xE0, 0xEE} if rgb else set())
    data, tables = stream(rgb=rgb, drop=markers)
    if rgb:  # only the quantisation and Huffman tables are shared
        _, tables = stream(rgb=rgb, drop={0xDB, 0xC4})
    encoding = Encoding("jpeg", tables=tables, jpeg_rgb=rgb)
    finished = browser_jpeg(data, encoding)
    assert finished is not None
    assert np.array_equal(as_browser(finished), encoding.decode(data, (96, 64, 3)))


def test_what_a_browser_would_show_differently_is_not_passed_on():
    grey = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture()[:, :, 0])))
    assert browser_jpeg(grey, Encoding("jpeg")) is None
    data, _ = stream()  # says itself that it is YCbCr
    assert browser_jpeg(data, Encoding("jpeg", jpeg_rgb=True)) is None
    assert browser_jpeg(b"\xff\xd8\xff", Encoding("jpeg")) is None
    assert browser_jpeg(b"not a JPEG", Encoding("jpeg")) is None
