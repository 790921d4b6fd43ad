"""Run-length encoded masks: both dialects, borders, empty and full masks, non-square images."""

import csv

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wsi_seg.annotations import AnnotationSets, read_annotations, read_for_slides
from wsi_seg.annotations.rle import decode_rle, dialect_of, encode_rle, outline_runs, read_runs
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))
DIALECTS = st.sampled_from(["relative", "absolute"])


@given(MASKS, DIALECTS)
def test_masks_come_back(mask, dialect):
    text = encode_rle(mask, dialect=dialect)
    height, width = mask.shape
    assert np.array_equal(decode_rle(text, height=height, width=width, dialect=dialect), mask)


def test_published_examples():
    # 1,1,1,0,0,1,0,1,1 read column by column.
    mask = np.array([1, 1, 1, 0, 0, 1, 0, 1, 1], bool).reshape(3, 3, order="F")
    assert encode_rle(mask, dialect="absolute") == "1 3 6 1 8 2"
    assert encode_rle(mask, dialect="relative") == "0 3 2 1 1 2"
    assert encode_rle(np.zeros((2, 3), bool), dialect="relative") == "-1"
    assert encode_rle(np.zeros((2, 3), bool), dialect="absolute") == ""


@given(MASKS)
def test_outlines_cover_the_pixels_and_nothing_else(mask):
    runs = read_runs(encode_rle(mask, dialect="absolute"), dialect="absolute")
    polygons = outline_runs(runs, mask.shape[0])
    y, x = np.nonzero(mask)
    px = shapely.box(x, y, x + 1, y + 1)
    assert shapely.area(polygons).sum() == mask.sum()
    assert shapely.area(shapely.difference(shapely.union_all(px), shapely.union_all(polygons))) == 0
    assert all(polygon.is_valid for polygon in polygons)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3", "3 numbers"),
        ("1 x", "whole numbers"),
        ("5 2 3 4", "overlap"),
        ("1 0", "less than 1 px"),
        ("0 4", "overlap"),
        ("20 9", "pixel 28"),
        ("9" * 30 + " 1", "whole numbers"),
    ],
)
def test_wrong_masks_are_refused(text, reason):
    with pytest.raises(AnnotationError, match=reason):
        decode_rle(text, height=4, width=5, dialect="absolute")


def test_the_dialect_is_inferred_from_the_masks():
    def reported(*texts, extent=None):
        return dialect_of((text, extent) for text in texts)

    assert reported("3 2 1 4 2 2", "-1") == ("relative", True)
    assert reported("3 2 9 4", "") == ("absolute", False)
    assert reported("9 4 3 2", "-1") == ("absolute", False)
    assert reported("9 4 3 2", "-1", extent=Extent(height=4, width=4)) == ("absolute", True)
    assert reported("0 5") == ("relative", True)
    assert reported("", "-1") == ("absolute", True)
    with pytest.raises(AnnotationError, match="--rle"):
        reported("3 2", "")
    with pytest.raises(AnnotationError, match="only valid as absolute RLE, and some only as"):
        reported("3 2 1 4 2 2", "12 2 3 2", extent=Extent(height=4, width=4))


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_rows_of_one_image_are_objects(tmp_path):
    left, right = np.zeros((8, 11), bool), np.zeros((8, 11), bool)
    left[2:5, 1:4] = True
    right[2:5, 3:9] = True
    right[7, 10] = True
    rows = [["ImageId", " EncodedPixels"], ["b", "-1"]]
    rows += [["A.dcm", encode_rle(mask, dialect="relative")] for mask in (left, right)]
    path = write_csv(tmp_path / "train.csv", [*rows, ["elsewhere", "1 2"]])
    sets = read_for_slides(
        path,
        {"a": Extent(height=8, width=11), "b": Extent(height=8, width=11)},
        default_class="air",
    )
    assert isinstance(sets, AnnotationSets)
    found = sets.by_slide
    assert [item.geometry.area for item in found["a"].items] == [9, 18 + 1]
    assert found["b"].items == ()
    assert found["a"].items[1].geometry.bounds == (3, 2, 11, 8)
    assert sets.unmatched == ("elsewhere",)


def test_a_mask_of_another_size_names_line_and_file(tmp_path):
    path = write_csv(tmp_path / "m.csv", [["id", "rle"], ["a", "1 2 90 4"]])
    with pytest.raises(AnnotationError, match=r"m\.csv: line 2: got RLE up to pixel 93"):
        read_for_slides(path, {"a": Extent(height=8, width=11)}, default_class="air")
    with pytest.raises(AnnotationError, match="many images"):
        read_annotations(path, default_class="air")
    with pytest.raises(AnnotationError, match=r"line 2 has no class"):
        read_for_slides(path, {"a": Extent(height=8, width=11)})


def test_the_masks_of_siim(shared_data):
    """Every row decodes inside 1,024 x 1,024 px; several rows of an image are one mask."""
    path = shared_data / "siim-rle" / "train-rle-subset.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    extents = {row["ImageId"]: Extent(height=1024, width=1024) for row in rows}
    sets = read_for_slides(path, extents, default_class="pneumothorax")
    assert isinstance(sets, AnnotationSets)
    found = sets.by_slide
    assert set(found) == set(extents)
    for name in list(extents)[:40]:
        masks = [row["EncodedPixels"] for row in rows if row["ImageId"] == name]
        union = np.zeros((1024, 1024), bool)
        for text in masks:
            union |= decode_rle(text, height=1024, width=1024, dialect="relative")
        area = sum(item.geometry.area for item in found[name].items)
        slivers = len(found[name].repairs)
        assert union.sum() - slivers <= area <= union.sum()
