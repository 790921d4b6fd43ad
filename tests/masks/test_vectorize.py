import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsi_seg.annotations import Annotation
from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.vectorize import vectorize

CLASSES = ClassTable.named(["a", "b"])
MASKS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.sampled_from([0, 1, 1, 1, 2]),
)


def in_strips(mask, height):
    return [(y, mask[y : y + height]) for y in range(0, len(mask), height)]


def drawn(found, shape):
    items = [Annotation(polygon, CLASSES.names[value - 1]) for value, polygon in found]
    region = Region(level=0, y=0, x=0, height=shape[0], width=shape[1])
    return Rasterizer(items, CLASSES).draw(region, (1.0, 1.0))


@given(MASKS, st.integers(1, 25))
def test_drawing_the_outlines_gives_the_mask_whatever_the_strips(mask, height):
    found = list(vectorize(in_strips(mask, height)))
    np.testing.assert_array_equal(drawn(found, mask.shape), mask)
    assert all(polygon.is_valid for _, polygon in found)
    objects = sum(ndimage.label(mask == value)[1] for value in (1, 2))
    assert len(found) == objects


@given(MASKS, st.integers(1, 25))
def test_strips_leave_no_trace_in_the_outlines(mask, height):
    whole = sorted(vectorize(in_strips(mask, 99)), key=lambda item: item[1].normalize().wkb)
    cut = sorted(vectorize(in_strips(mask, height)), key=lambda item: item[1].normalize().wkb)
    assert [value for value, _ in whole] == [value for value, _ in cut]
    for (_, a), (_, b) in zip(whole, cut, strict=True):
        assert shapely.equals(a, b)
        assert len(a.interiors) == len(b.interiors)


def test_a_ring_through_a_thousand_strips_keeps_its_hole():
    mask = np.zeros((1000, 40), dtype=np.uint8)
    mask[5:995, 3:37] = 1
    mask[10:990, 8:32] = 0
    mask[400:500, 15:20] = 2  # another object inside the hole
    found = dict(vectorize(in_strips(mask, 1)))
    assert found[1].area == (mask == 1).sum()
    assert len(found[1].interiors) == 1
    assert len(found[1].exterior.coords) == 5
    assert found[2].bounds == (15, 400, 20, 500)


def test_nothing_gives_nothing():
    assert list(vectorize([(0, np.zeros((5, 5), dtype=np.uint8))])) == []


@pytest.mark.parametrize("downsample", [1.0, 4.0, 2.6])
def test_rasterising_windows_gives_the_whole_cut_up(downsample):
    star = shapely.Point(61.3, 47.7).buffer(30).difference(shapely.Point(61.3, 47.7).buffer(11))
    assert isinstance(star, shapely.Polygon)
    items = [Annotation(star, "a"), Annotation(shapely.box(50.3, 20.3, 90.7, 40.7), "b")]
    size = int(120 / downsample)
    rasterizer = Rasterizer(items, CLASSES)
    scale = (downsample, downsample)
    whole = rasterizer.draw(Region(level=0, y=0, x=0, height=size, width=size), scale)
    assert set(np.unique(whole)) == {0, 1, 2}
    y, x = (np.mgrid[:size, :size] + 0.5) * downsample
    inside = shapely.contains_xy(star, x, y)
    over = shapely.contains_xy(items[1].geometry, x, y)
    np.testing.assert_array_equal(whole == 2, over)
    np.testing.assert_array_equal(whole == 1, inside & ~over)
    for top in range(0, size, 7):
        region = Region(level=0, y=top, x=3, height=7, width=11)
        window = rasterizer.draw(region, scale)
        part = whole[top : top + 7, 3:14]
        np.testing.assert_array_equal(window[: part.shape[0], : part.shape[1]], part)
