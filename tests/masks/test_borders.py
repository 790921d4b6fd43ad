"""Borders traced all at once are those that GDAL traces one by one."""

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import shapes
from scipy import ndimage

from wsi_seg.masks.borders import trace


def maps():
    """Noise of 1 to 4 classes, coarse or fine, with borders, corners and holes of all kinds."""
    seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, 30)
    return st.builds(made, seeds, sizes, sizes, st.integers(2, 5), st.sampled_from([0.0, 1.0, 3.0]))


def made(seed, height, width, classes, sigma):
    noise = np.random.default_rng(seed).random((height, width))
    smooth = ndimage.gaussian_filter(noise, sigma) if sigma else noise
    ranks = smooth.ravel().argsort().argsort().reshape(smooth.shape)
    return (ranks * classes // smooth.size).astype(np.uint8)


def alike(values, polygons):
    return sorted(
        (int(value), shapely.normalize(polygon).wkb)
        for value, polygon in zip(values, polygons, strict=True)
    )


@given(maps())
def test_outlines_are_valid_and_those_of_gdal(labels):
    values, polygons = trace(labels)
    assert shapely.is_valid(polygons).all()
    found = [(v, shapely.geometry.shape(s)) for s, v in shapes(labels, labels != 0, 4)]
    assert alike(values, polygons) == alike([v for v, _ in found], [s for _, s in found])


@given(maps())
def test_objects_come_in_the_order_of_their_first_pixels(labels):
    _, polygons = trace(labels, top=7)
    corners = [ring[0] for ring in map(shapely.get_coordinates, polygons)]
    first = [(y, x) for x, y in corners]
    assert first == sorted(first)
    assert all(y >= 7 for y, _ in first)


def test_nothing_has_no_outlines():
    values, polygons = trace(np.zeros((3, 4), np.int32))
    assert len(values) == len(polygons) == 0
