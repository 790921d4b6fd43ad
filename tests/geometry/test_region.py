import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import RegionError
from wsi_seg.geometry import Extent, Region


def test_extent_refuses_emptiness_and_says_what_it_got():
    with pytest.raises(RegionError, match="0 x 7 px"):
        Extent(0, 7)


@given(
    st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 40), st.integers(1, 40),
    st.integers(1, 25), st.integers(1, 25),
)  # fmt: skip
def test_clip_keeps_exactly_the_px_that_exist(y, x, height, width, full_height, full_width):
    region = Region(level=0, y=y, x=x, height=height, width=width)
    extent = Extent(full_height, full_width)
    rows = sorted(set(range(y, y + height)) & set(range(full_height)))
    columns = sorted(set(range(x, x + width)) & set(range(full_width)))
    if not rows or not columns:
        with pytest.raises(RegionError, match="wholly outside"):
            region.clip(extent)
        return
    clipped = region.clip(extent)
    assert (clipped.y, clipped.y_end - 1) == (rows[0], rows[-1])
    assert (clipped.x, clipped.x_end - 1) == (columns[0], columns[-1])
    assert clipped.inside(extent)
    assert region.inside(extent) == (clipped == region)


def test_slices_are_rows_then_columns():
    region = Region(level=2, y=3, x=10, height=5, width=7)
    assert region.slices == (slice(3, 8), slice(10, 17))
