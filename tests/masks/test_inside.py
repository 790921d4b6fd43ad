"""Parts of slides: a box, polygons, a class; pixels and tiles of them, at any resolution."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.geometry import Extent, Region, TileGrid
from wsi_seg.masks.inside import Inside

FULL, SHAPE = Extent(height=230, width=310), (230, 310)
CLASSES = ClassTable.named(["tumour", "stroma"])


def save(path, *shapes):
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": {}}
        for shape in shapes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def slide_with(ids):
    attributes = {"classes": CLASSES.to_json()}
    picture = np.zeros((*SHAPE, 3), np.uint8)
    return MemoryStore(
        MemoryImage(picture), name="s", annotations=MemoryImage(ids, attributes=attributes)
    )


BOXES = st.tuples(
    st.integers(0, 300), st.integers(0, 220), st.integers(1, 200), st.integers(1, 200)
)


@given(BOXES)
def test_a_box_is_in_level_0_pixels_x_before_y(box):
    x, y, width, height = box
    inside = Inside.parse(bbox=f"{x},{y},{width},{height}")
    expected = np.zeros(SHAPE, bool)
    expected[y : y + height, x : x + width] = True
    assert np.array_equal(inside.rows(None, FULL, FULL), expected)
    half = Extent(height=115, width=155)
    ys, xs = np.arange(1, 230, 2)[:, None], np.arange(1, 310, 2)  # centres of its pixels
    within = (y < ys) & (ys < y + height) & (x < xs) & (xs < x + width)
    near = (y <= ys) & (ys <= y + height) & (x <= xs) & (xs <= x + width)
    found = inside.rows(None, FULL, half)
    assert (within <= found).all()
    assert (found <= near).all()


@given(BOXES, st.integers(8, 64), st.booleans())
def test_tiles_that_are_left_out_have_no_pixel_inside(box, tile_px, by_class):
    x, y, width, height = box
    if by_class:
        ids = np.zeros(SHAPE, np.uint8)
        ids[y : y + height, x : x + width] = 2
        inside, slide = Inside.parse("stroma"), slide_with(ids)
    else:
        inside, slide = (
            Inside.parse(bbox=f"{x},{y},{width},{height}"),
            slide_with(np.zeros(SHAPE, np.uint8)),
        )
    grid = TileGrid(FULL, tile_px, tile_px // 2)
    tile = Extent(height=tile_px, width=tile_px)
    touched = inside.touched(slide, FULL, FULL, grid.ys, grid.xs, tile)
    pixels = inside.rows(slide, FULL, FULL)
    margin = 2 if by_class else 0
    for row, top in enumerate(grid.ys):
        for column, left in enumerate(grid.xs):
            has = pixels[top : top + tile_px, left : left + tile_px].any()
            near = pixels[
                max(0, top - margin) : top + tile_px + margin,
                max(0, left - margin) : left + tile_px + margin,
            ].any()
            assert has <= touched[row, column] <= near


@given(
    st.lists(st.tuples(st.floats(0, 310), st.floats(0, 230)), min_size=3, max_size=8), BOXES,
    st.integers(1, 230), st.booleans(),
)  # fmt: skip
def test_touched_pixels_are_those_of_which_a_part_is_inside(corners, box, height, aligned):
    area = shapely.MultiPoint(corners).convex_hull.buffer(0)
    x, y, width, tall = box
    inside = Inside.parse(bbox=f"{x},{y},{width},{tall}")
    if not aligned and not area.is_empty:
        inside = Inside("drawn", area)
    small = Extent(height=height, width=max(1, height * 310 // 230))
    found = inside.rows(None, FULL, small, touched=True)
    ys, xs = range(small.height), range(small.width)
    pixel = Extent(height=1, width=1)
    assert np.array_equal(found, inside.touched(None, FULL, small, ys, xs, pixel))
    assert (inside.rows(None, FULL, small) <= found).all()


def test_polygons_with_a_hole_and_their_common_part_with_a_box(tmp_path):
    ring = shapely.box(20, 10, 120, 90).difference(shapely.box(50, 30, 80, 60))
    file = save(tmp_path / "part.geojson", ring, shapely.box(200, 100, 210, 120))
    pixels = Inside.parse(file).rows(None, FULL, FULL)
    assert pixels.sum() == 100 * 80 - 30 * 30 + 10 * 20
    assert not pixels[45, 65]
    both = Inside.parse(file, "0,0,60,40")
    assert both.rows(None, FULL, FULL).sum() == 40 * 30 - 10 * 10
    assert both.description.startswith("box 0,0,60,40 and polygons part.geojson (")
    region = Region(level=0, y=25, x=40, height=30, width=50)
    assert np.array_equal(Inside.parse(file).rows(None, FULL, FULL, region), pixels[25:55, 40:90])


def test_what_is_recorded_names_the_content_of_a_file(tmp_path):
    first = Inside.parse(save(tmp_path / "a.geojson", shapely.box(0, 0, 9, 9))).description
    again = Inside.parse(save(tmp_path / "a.geojson", shapely.box(0, 0, 9, 9))).description
    other = Inside.parse(save(tmp_path / "a.geojson", shapely.box(0, 0, 9, 8))).description
    assert first == again != other


def test_a_label_is_ignored_outside_and_an_image_is_nothing(tmp_path):
    ids = np.full(SHAPE, 1, np.uint8)
    inside = Inside.parse(bbox="10,20,30,40")
    image = inside.alone(MemoryImage(ids), None, FULL).read(FULL.region())
    assert image.sum() == 30 * 40
    assert image[20:60, 10:40].all()


@pytest.mark.parametrize(
    "bbox", ["1,2,3", "1,2,3,0", "a,2,3,4", "1.5,2,3,4", "-1,2,3,4", "1,2,0,4"]
)
def test_other_boxes_are_refused(bbox):
    with pytest.raises(ConfigError, match=r"--bbox .*expected"):
        Inside.parse(bbox=bbox)


def test_what_is_not_there_is_refused(tmp_path):
    slide = slide_with(np.zeros(SHAPE, np.uint8))
    with pytest.raises(StoreError, match=r"slide s: got class 'nerve'.*tumour, stroma"):
        Inside.parse("nerve").rows(slide, FULL, FULL)
    with pytest.raises(StoreError, match="expected their collection"):
        Inside.parse("tumour").rows(None, FULL, FULL)
    file = save(tmp_path / "a.geojson", shapely.box(0, 0, 9, 9))
    with pytest.raises(ConfigError, match="got no polygons in"):
        Inside.parse(file, "100,100,5,5")


def test_what_is_held_of_a_tall_slide_is_a_row_of_tiles():
    read = []

    class Noting(MemoryImage):
        def read(self, region, *, cached=True, out=None):
            read.append(region.height * region.width)
            return super().read(region, cached=cached, out=out)

    full, tile = Extent(height=20_000, width=300), Extent(height=128, width=128)
    ids = np.zeros((full.height, full.width), np.uint8)
    ids[15_000:15_100, 40:60] = 1
    label = Noting(ids, attributes={"classes": CLASSES.to_json()})
    slide = MemoryStore(MemoryImage(np.zeros((1, 1, 3), np.uint8)), annotations=label)
    grid = TileGrid(full, 128, 64)
    touched = Inside.parse("tumour").touched(slide, full, full, grid.ys, grid.xs, tile)
    assert set(np.argwhere(touched)[:, 0]) == set(range(233, 236))
    assert max(read) <= 2 * tile.height * full.width
