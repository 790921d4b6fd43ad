"""LabelMe's shapes of newer and older versions, labels of any kind, and masks in base64."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from wsi_seg.annotations import read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.rasterize import Rasterizer

SQUARE = [[10, 10], [50, 10], [50, 50], [10, 50]]


def packed(mask, mode="1"):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def read(folder, *shapes, **more):
    path = folder / "a.json"
    path.write_text(json.dumps({"shapes": list(shapes), **more}))
    return read_annotations(path)


@pytest.mark.parametrize(
    "shape",
    [
        {"shape_type": "rectangle", "points": SQUARE},
        {"shape_type": "rectangle", "points": [[50, 10], [10, 50]]},
        {"shape_type": "rotation", "points": SQUARE, "direction": 1.5},
        {"shape_type": "oriented_rectangle", "points": SQUARE},
        {"shape_type": "quadrilateral", "points": SQUARE},
        {"shape_type": None, "points": SQUARE},
        {"points": SQUARE, "line_color": None, "fill_color": None},
        {"shape_type": "polygon", "points": [*SQUARE, SQUARE[0]], "flags": {}, "mask": None},
    ],
)
def test_squares_of_all_versions(tmp_path, shape):
    found = read(tmp_path, {"label": "T"} | shape)
    assert [(item.class_name, item.geometry.area) for item in found.items] == [("T", 1600)]


@pytest.mark.parametrize(("label", "name"), [(1, "1"), (0, "0"), (" a b ", "a b")])
def test_labels_may_be_numbers(tmp_path, label, name):
    assert read(tmp_path, {"label": label, "points": SQUARE}).items[0].class_name == name


@pytest.mark.parametrize("label", [None, "", " ", True, [], {}])
def test_other_labels_are_refused(tmp_path, label):
    with pytest.raises(AnnotationError, match="shape 0 has no label"):
        read(tmp_path, {"label": label, "points": SQUARE})


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_masks_are_drawn_pixel_for_pixel(tmp_path, mode):
    mask = np.random.default_rng(0).random((13, 9)) < 0.6
    mask[[0, -1]] = True
    shape = {"label": "T", "shape_type": "mask", "points": [[5, 7], [13, 19]],
             "mask": packed(mask, mode)}  # fmt: skip
    found = read(tmp_path, shape)
    assert len(found.items) == 1
    region = Region(level=0, y=0, x=0, height=30, width=30)
    drawn = Rasterizer(found.items, ClassTable.named(["T"])).draw(region, (1.0, 1.0))
    expected = np.zeros((30, 30), np.uint8)
    expected[7:20, 5:14] = mask
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize(
    "mask", [None, "", "no base64!", "AAAA", base64.b64encode(b"\x89PNG\r\n\x1a\nx").decode(), 7]
)
def test_masks_that_cannot_be_read_are_named(tmp_path, mask):
    shape = {"label": "T", "shape_type": "mask", "points": [[5, 7], [13, 19]], "mask": mask}
    with pytest.raises(AnnotationError, match="shape 0: got a mask that cannot be read"):
        read(tmp_path, shape)


def test_a_mask_of_another_size_than_its_box_is_refused(tmp_path):
    shape = {"label": "T", "shape_type": "mask", "points": [[5, 7], [13, 19]],
             "mask": packed(np.ones((13, 10), bool))}  # fmt: skip
    with pytest.raises(AnnotationError, match=r"shape 0: got a mask of 10 x 13 px in a box of 9 x"):
        read(tmp_path, shape)


@pytest.mark.parametrize("size", [(60, 80), (60.0, 80.0), ("60", "80")])
def test_sizes_in_any_spelling(tmp_path, size):
    found = read(tmp_path, imageHeight=size[0], imageWidth=size[1])
    assert found.extent == Extent(height=60, width=80)
    assert read(tmp_path, imageHeight=None, imageWidth=80).extent is None
