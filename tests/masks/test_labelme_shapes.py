"""Every shape that LabelMe knows, from its file to pixels."""

import itertools
import json

import numpy as np
import pytest

from wsi_seg.annotations import read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.vectorize import vectorize

SIZE = 60, 80
Y, X = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5  # centres of pixels


def near_line(points, distance):
    """Pixels whose centre is at most so far from a line strip."""
    found = np.zeros(SIZE, dtype=bool)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = max(1e-9, (x1 - x0) ** 2 + (y1 - y0) ** 2)
        along = np.clip(((X - x0) * (x1 - x0) + (Y - y0) * (y1 - y0)) / length, 0, 1)
        found |= np.hypot(X - x0 - along * (x1 - x0), Y - y0 - along * (y1 - y0)) <= distance
    return found


POLYGON = [[10, 10], [50, 10], [50, 40], [10, 40]]
SHAPES = {
    "polygon": (POLYGON, (X > 10) & (X < 50) & (Y > 10) & (Y < 40)),
    "rectangle": ([[60.2, 30], [20, 5.4]], (X > 20) & (X < 60.2) & (Y > 5.4) & (Y < 30)),
    "circle": ([[40, 30], [40, 45]], np.hypot(X - 40, Y - 30) < 15),
    "line": ([[20, 20], [60, 20]], near_line([[20, 20], [60, 20]], 5)),
    "linestrip": (
        [[20, 20], [60, 20], [60, 45]],
        near_line([[20, 20], [60, 20], [60, 45]], 5),
    ),
    "point": ([[40, 30]], np.hypot(X - 40, Y - 30) < 5),
}


def drawn(folder, *shapes):
    rows = [
        {"label": "gland", "shape_type": kind, "points": points, "group_id": None}
        for kind, points in shapes
    ]
    path = folder / "slide.json"
    path.write_text(json.dumps({"shapes": rows, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}))
    items = read_annotations(path).items
    region = Region(level=0, y=0, x=0, height=SIZE[0], width=SIZE[1])
    return Rasterizer(list(items), ClassTable.named(["gland"])).draw(region, (1.0, 1.0)) == 1


@pytest.mark.parametrize("kind", SHAPES)
def test_each_shape_covers_the_pixels_it_shows(tmp_path, kind):
    points, expected = SHAPES[kind]
    found = drawn(tmp_path, (kind, points))
    if kind in ("polygon", "rectangle"):
        assert np.array_equal(found, expected)
    # Arcs are drawn as polygons of many sides.
    both, either = (found & expected).sum(), (found | expected).sum()
    assert both / either > 0.97


def test_overlapping_shapes_are_united(tmp_path):
    shapes = [("rectangle", SHAPES["rectangle"][0]), ("circle", SHAPES["circle"][0])]
    each = [drawn(tmp_path, shape) for shape in shapes]
    assert np.array_equal(drawn(tmp_path, *shapes), each[0] | each[1])


def test_mask_to_polygon_to_mask_keeps_holes(tmp_path):
    mask = SHAPES["circle"][1] & ~(np.hypot(X - 38, Y - 28) < 6)
    ((value, polygon),) = vectorize([(0, mask.astype(np.uint8))])
    assert (value, len(polygon.interiors)) == (1, 1)
    path = tmp_path / "ring.geojson"
    feature = {
        "type": "Feature",
        "geometry": json.loads(json.dumps(polygon.__geo_interface__)),
        "properties": {"classification": {"name": "gland"}},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    region = Region(level=0, y=0, x=0, height=SIZE[0], width=SIZE[1])
    items = list(read_annotations(path).items)
    again = Rasterizer(items, ClassTable.named(["gland"])).draw(region, (1.0, 1.0)) == 1
    assert np.array_equal(again, mask)
