import imagecodecs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.codestreams.streams import jpeg_colours_unmarked
from wsi_seg.geometry import Region
from wsi_seg.slides.tiles import paste, pread


def test_bytes_are_read_by_place(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    assert pread(tmp_path / "a", 3, 4) == b"3456"
    assert pread(tmp_path / "a", 8, 9) == b"89"


def test_what_a_jpeg_says_of_itself():
    pixels = np.zeros((24, 40, 3), np.uint8)
    data = bytes(imagecodecs.jpeg8_encode(pixels))
    assert not jpeg_colours_unmarked(data)
    bare = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]  # without the JFIF segment
    assert jpeg_colours_unmarked(bare)


@given(st.binary(max_size=64))
def test_any_bytes_are_survived(data):
    jpeg_colours_unmarked(b"\xff\xd8" + data)


sides = st.integers(1, 9)


@given(st.integers(-9, 9), st.integers(-9, 9), st.tuples(sides, sides), st.tuples(sides, sides))
def test_tiles_are_pasted_where_they_lie(y, x, tile, size):
    region = Region(level=0, y=2, x=1, height=size[0], width=size[1])
    out = np.zeros((*size, 1), np.uint8)
    paste(np.ones((*tile, 1), np.uint8), y, x, region=region, out=out)
    level = np.zeros((40, 40), np.uint8)
    level[y + 20 : y + 20 + tile[0], x + 20 : x + 20 + tile[1]] = 1
    assert np.array_equal(out[..., 0], level[22 : 22 + size[0], 21 : 21 + size[1]])
