"""Borders traced all at once are those that GDAL traces one by one."""

import numpy as np
import shapely
from hypothesis import given
from rasterio.features import shapes

from tests.makers.label_maps import label_maps
from wsi_seg.masks.borders import trace


def alike(values, polygons):
    return sorted(
        (int(value), shapely.normalize(polygon).wkb)
        for value, polygon in zip(values, polygons, strict=True)
    )


@given(label_maps(30))
def test_outlines_are_valid_and_those_of_gdal(labels):
    values, polygons = trace(labels)
    assert shapely.is_valid(polygons).all()
    found = [(v, shapely.geometry.shape(s)) for s, v in shapes(labels, labels != 0, 4)]
    assert alike(values, polygons) == alike([v for v, _ in found], [s for _, s in found])


@given(label_maps(30))
def test_objects_come_in_the_order_of_their_first_pixels(labels):
    _, polygons = trace(labels, top=7)
    corners = [ring[0] for ring in map(shapely.get_coordinates, polygons)]
    first = [(y, x) for x, y in corners]
    assert first == sorted(first)
    assert all(y >= 7 for y, _ in first)


def test_nothing_has_no_outlines():
    values, polygons = trace(np.zeros((3, 4), np.int32))
    assert len(values) == len(polygons) == 0
