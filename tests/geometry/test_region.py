import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.strategies import extents
from wsi_seg.errors import RegionError
from wsi_seg.geometry import Extent, Region
from wsi_seg.geometry.region import require_inside


def test_extent_refuses_emptiness_and_says_what_it_got():
    with pytest.raises(RegionError, match="0 x 7 px"):
        Extent(height=0, width=7)


@given(
    st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 40), st.integers(1, 40),
    st.integers(1, 25), st.integers(1, 25),
)  # fmt: skip
def test_clip_keeps_exactly_the_pixels_that_exist(y, x, height, width, full_height, full_width):
    region = Region(level=0, y=y, x=x, height=height, width=width)
    extent = Extent(height=full_height, width=full_width)
    rows = sorted(set(range(y, y + height)) & set(range(full_height)))
    columns = sorted(set(range(x, x + width)) & set(range(full_width)))
    if not rows or not columns:
        with pytest.raises(RegionError, match="expected an overlap"):
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


@given(extents(), st.integers(1, 70), st.integers(0, 3))
def test_strips_are_the_level_from_top_to_bottom_and_nothing_twice(extent, rows, level):
    strips = list(extent.strips(rows, level))
    assert [row for strip in strips for row in range(strip.y, strip.y_end)] == [
        *range(extent.height)
    ]
    assert {(strip.level, strip.x, strip.width) for strip in strips} == {(level, 0, extent.width)}
    assert {strip.height for strip in strips[:-1]} <= {rows}
    assert strips[0].y == 0


def test_strips_of_a_region_stay_inside_of_it():
    region = Region(level=1, y=5, x=2, height=5, width=3)
    assert [(one.y, one.y_end) for one in region.strips(2)] == [(5, 7), (7, 9), (9, 10)]
    assert {(one.level, one.x, one.width) for one in region.strips(2)} == {(1, 2, 3)}


def test_strips_of_no_rows_are_refused():
    with pytest.raises(RegionError, match="strips of 0 rows"):
        next(Extent(height=3, width=3).strips(0))


def test_a_whole_level_as_a_region():
    region = Extent(height=3, width=4).region(2)
    assert region == Region(level=2, y=0, x=0, height=3, width=4)


def test_the_size_of_an_array_is_its_rows_and_columns():
    assert Extent.of((3, 4, 5)) == Extent.of((3, 4)) == Extent(height=3, width=4)


def test_an_extent_shrinks_on_both_sides_and_never_to_nothing():
    extent = Extent(height=40, width=10)
    assert extent.area == 400
    assert extent.scaled(4) == Extent(height=10, width=2)
    assert extent.scaled(100) == Extent(height=1, width=1)


@pytest.mark.parametrize(("level", "height", "width"), [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_a_region_without_pixels_or_level_is_refused(level, height, width):
    with pytest.raises(RegionError, match="at least 1 x 1 px"):
        Region(level=level, y=0, x=0, height=height, width=width)


def test_a_region_that_sticks_out_is_refused_by_the_name_of_the_slide():
    extent = Extent(height=4, width=6)
    require_inside(extent.region(), extent, "a")
    for y, x in ((-1, 0), (0, -1), (1, 0), (0, 1)):
        with pytest.raises(RegionError, match=r"a: got region level=0 .*6 x 4 px; clip it first"):
            require_inside(Region(level=0, y=y, x=x, height=4, width=6), extent, "a")
