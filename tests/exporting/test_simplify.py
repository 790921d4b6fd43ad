"""Simplified outlines hold the same pixels, and touch as they did."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize

from tests.makers.label_maps import label_maps
from wsi_seg.exporting.simplify import MAX_PX, Nodes, simplify
from wsi_seg.geometry import Extent
from wsi_seg.masks.vectorize import vectorize


def outlined(labels, height, tolerance=MAX_PX):
    nodes = Nodes(Extent.of(labels.shape))
    strips = ((y, labels[y : y + height]) for y in range(0, len(labels), height))
    found = list(vectorize(nodes.watch(strips)))
    values = [value for value, _ in found]
    polygons = np.array([polygon for _, polygon in found], dtype=object)
    return values, polygons, simplify(polygons, nodes, tolerance)


def farthest(before, after):
    """How far the new outlines are from the old ones, at most."""
    dense = shapely.segmentize(shapely.boundary(after), 0.1)
    points, which = shapely.get_coordinates(dense, return_index=True)
    return shapely.distance(shapely.boundary(before)[which], shapely.points(points)).max()


@given(label_maps(40), st.integers(1, 41))
def test_pixels_and_neighbours_stay_and_nothing_crosses(labels, height):
    values, before, after = outlined(labels, height)
    assert shapely.is_valid(after).all()
    if len(after):
        drawn = rasterize(zip(after, values, strict=True), out_shape=labels.shape, dtype=np.uint8)
        np.testing.assert_array_equal(drawn, labels)
        # Nothing overlaps: the area of all together is the sum of their areas.
        assert shapely.area(shapely.union_all(after)) == pytest.approx(shapely.area(after).sum())
        assert farthest(before, after) < 0.5
        joined = [shapely.area(shapely.union_all(some)) for some in (before, after)]
        if (labels > 0).all():  # no gap opens between neighbours
            assert joined[0] == pytest.approx(joined[1]) == pytest.approx(labels.size)


@given(label_maps(40), st.integers(1, 41))
def test_the_height_of_strips_leaves_no_trace(labels, height):
    found = [outlined(labels, h)[2] for h in (height, 100)]
    one, other = (sorted(polygon.normalize().wkb for polygon in some) for some in found)
    assert one == other


def test_a_disc_loses_most_of_its_vertices():
    y, x = np.mgrid[:40, :40]
    disc = (np.hypot(y - 19.5, x - 19.5) < 14).astype(np.uint8)
    _, before, after = outlined(disc, 40)
    counts = shapely.get_num_coordinates(before)[0], shapely.get_num_coordinates(after)[0]
    assert counts[1] < counts[0] / 3
    assert outlined(disc, 40, tolerance=0)[2][0].equals(before[0])
