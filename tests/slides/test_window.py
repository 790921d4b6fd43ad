import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.slides.window import HOUNSFIELD, Window, grey_rgb


def test_air_is_black_and_bone_is_white():
    values = np.array([[-3000, -1200, -300, 600, 3000]], np.int16)
    assert HOUNSFIELD.to_uint8(values).tolist() == [[0, 0, 128, 255, 255]]


def test_bytes_are_unchanged_and_nan_is_black():
    values = np.arange(256, dtype=np.uint8)[None]
    assert np.array_equal(Window(0, 255).to_uint8(values), values)
    odd = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    assert Window(0, 255).to_uint8(odd).tolist() == [[0, 255, 0]]


@given(st.floats(-1e5, 1e5), st.floats(1, 1e5), st.lists(st.integers(-32768, 32767), min_size=2))
def test_order_is_kept(low, span, values):
    shown = Window(low, low + span).to_uint8(np.sort(np.array([values], np.int16)))
    assert (np.diff(shown.astype(int)) >= 0).all()


def test_grey_is_repeated():
    assert grey_rgb(np.full((2, 3), 7, np.uint8)).shape == (2, 3, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_any_type_becomes_uint8(dtype):
    assert Window(0, 10).to_uint8(np.zeros((2, 2), dtype)).dtype == np.uint8
