"""Captions, keys and lines of text on pictures."""

import pytest
from PIL import Image

from wsi_seg.reporting.sheet import captioned, keys, text


@pytest.mark.parametrize(
    "name", ["two\nlines", "a\r\nb", "a\u2028b", "Pru\u0308fung", "\u05e2\u05d1"]
)
def test_names_of_any_letters_are_written_on_one_line(name):
    picture = Image.new("RGB", (60, 20))
    plain = captioned(picture, "x")
    assert captioned(picture, name).size == plain.size
    assert text(name).height == text("x").height
    assert keys([(name, (1, 2, 3))], 400).height == keys([("x", (1, 2, 3))], 400).height
