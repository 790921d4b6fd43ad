"""Csv files of runs as competitions and people write them: columns, separators, sizes, dialects."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.annotations import read_for_slides
from wsi_seg.annotations.rle import encode_rle
from wsi_seg.classes import ClassTable
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.rasterize import Rasterizer

HEIGHT, WIDTH = 30, 40
EXTENTS = {name: Extent(height=HEIGHT, width=WIDTH) for name in ("slide", "slide2")}


def mask(*boxes, size=(HEIGHT, WIDTH)):
    found = np.zeros(size, bool)
    for x, y, wide, tall in boxes:
        found[y : y + tall, x : x + wide] = True
    return found


def runs(*boxes, size=(HEIGHT, WIDTH), dialect="absolute"):
    return encode_rle(mask(*boxes, size=size), dialect=dialect)


FIRST, TOUCHING, THIRD = (4, 4, 8, 8), (12, 4, 8, 8), (22, 15, 5, 5)
A, B, C = runs(FIRST), runs(TOUCHING), runs(THIRD)


def read(folder, text, name="x.csv", default_class="T", dialect=None):
    path = folder / name
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return read_for_slides(path, EXTENTS, default_class=default_class, dialect=dialect)


def drawn(annotations):
    names = sorted({item.class_name for item in annotations.items})
    region = Region(level=0, y=0, x=0, height=HEIGHT, width=WIDTH)
    return Rasterizer(annotations.items, ClassTable.named(names)).draw(region, (1.0, 1.0))


def assert_drawn(sets, *boxes, slide="slide"):
    assert np.array_equal(drawn(sets.by_slide[slide]) > 0, mask(*boxes))


TABLE = f"id,encoding\nslide,{A}\nslide2,\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE, TABLE + "\n", TABLE + "\n\n  \n,\n", "\n\n" + TABLE, TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r\r\n"), TABLE.replace("\n", "\r"), TABLE.replace("\n", "\n\n"),
        TABLE.replace(",", ";"), TABLE.replace(",", "\t"), TABLE.replace(",", "|"),
        TABLE.encode("utf-8-sig"), TABLE.replace(",", "\t").encode("utf-16"),
        TABLE.encode("utf-16"), TABLE.replace("id,", " ID , ", 1).replace("encoding", "rle"),
        ",id,rle\n0,slide," + A + "\n1,slide2,\n", '"id","rle"\n"slide","' + A + '"\nslide2,""\n',
        "Unnamed: 0,id,rle\n0,slide," + A + "\n1,slide2,-1\n",
    ],
)  # fmt: skip
def test_tables_of_any_make(tmp_path, text):
    for name in ("x.csv", "x.txt", "x.CSV.gz"):
        sets = read(tmp_path, text, name.replace("CSV", "csv"))
        assert_drawn(sets, FIRST)
        assert sets.by_slide["slide2"].items == ()
        assert sets.notes == sets.unmatched == ()


@pytest.mark.parametrize(
    "image", ["id", "ImageId", "image_id", "Image", "img", "filename", "File Name", "slide", "path"]
)
@pytest.mark.parametrize("runs_column", ["rle", "EncodedPixels", "encoding", "annotation", "mask"])
def test_usual_names_of_columns(tmp_path, image, runs_column):
    assert_drawn(read(tmp_path, f"{image},{runs_column}\nslide,{A}\n"), FIRST)


@pytest.mark.parametrize(
    "column",
    ["class", "Class", "ClassId", "class_id", "category_id", "category", "label", "cell_type",
     "class_name", "Category Name"],
)  # fmt: skip
def test_a_column_that_tells_the_class_is_used(tmp_path, column):
    sets = read(tmp_path, f"id,{column},rle\nslide,1,{A}\nslide,3,{C}\nslide,,{B}\nslide2,,-1\n")
    assert [item.class_name for item in sets.by_slide["slide"].items] == ["1", "3", "T"]
    assert sets.notes == ()


def test_an_image_and_its_class_in_one_cell(tmp_path):
    for column in ("ImageId_ClassId", "Image_Label"):
        text = f"{column},EncodedPixels\nmy/slide.jpg_1,{A}\nmy/slide.jpg_fish,{C}\nslide2_2,\n"
        sets = read(tmp_path, text)
        assert [item.class_name for item in sets.by_slide["slide"].items] == ["1", "fish"]
        assert sets.by_slide["slide2"].items == ()


def test_columns_that_are_not_understood_are_named(tmp_path):
    sets = read(tmp_path, f"id,organ,rle,sex\nslide,kidney,{A},f\n")
    assert_drawn(sets, FIRST)
    assert sets.notes == ("ignored columns: organ, sex",)
    with pytest.raises(AnnotationError, match=r"columns name, runlength; expected .*EncodedPixels"):
        read(tmp_path, f"name,runlength\nslide,{A}\n")
    with pytest.raises(AnnotationError, match=r"columns a, b; expected"):
        read(tmp_path, f"a;b\n1;{A}\n", "x.tsv")
    with pytest.raises(AnnotationError, match="columns rle twice"):
        read(tmp_path, f"id,rle,rle\nslide,{A},{B}\n")
    with pytest.raises(AnnotationError, match="line 3 has 3 columns; expected 2"):
        read(tmp_path, f"id,rle\nslide,{A}\nslide,{A},{B}\n")


def test_the_column_whose_names_fit_slides_names_them(tmp_path):
    sets = read(tmp_path, f"id,file_name,rle\n17,a/slide.tif,{A}\n18,elsewhere.tif,{C}\n")
    assert_drawn(sets, FIRST)
    assert sets.unmatched == ("elsewhere.tif",)
    assert sets.notes == ("ignored columns: id",)


@pytest.mark.parametrize(
    ("tall", "wide"),
    [("height", "width"), ("img_height", "img_width"), ("ImageHeight", "ImageWidth"), ("h", "w"),
     ("rows", "cols"), ("height_px", "width_px"), ("size_y", "size_x"),
     ("orig_height", "orig_width"), ("slide_height", "slide_width"), ("n_rows", "n_columns")],
)  # fmt: skip
def test_sizes_that_a_table_states_are_used(tmp_path, tall, wide):
    half = runs((2, 3, 4, 5), size=(15, 20))
    sets = read(tmp_path, f"id,{tall},{wide},rle\nslide,15,20,{half}\nslide2,30.0,40,{A}\n")
    assert_drawn(sets, (4, 6, 8, 10))
    assert_drawn(sets, FIRST, slide="slide2")
    assert sets.notes == ()
    with pytest.raises(AnnotationError, match=r"line 2 has 17 x 15 px, its slide has 40 x 30 px"):
        read(tmp_path, f"id,{tall},{wide},rle\nslide,15,17,{half}\n")
    with pytest.raises(AnnotationError, match=r"line 2 has 80 x 60 px"):
        read(tmp_path, f"id,{tall},{wide},rle\nslide,60,80,{A}\n")
    with pytest.raises(AnnotationError, match=r"line 2: got height 'tall'"):
        read(tmp_path, f"id,{tall},{wide},rle\nslide,tall,80,{A}\n")
    with pytest.raises(AnnotationError, match=r"line 2 has 40 x 60 px"):
        read(tmp_path, f"id,{tall},rle\nslide,60,{A}\n")
    assert_drawn(read(tmp_path, f"id,{tall},{wide},rle\nslide,,,{A}\n"), FIRST)


def test_a_row_is_an_object_where_an_image_has_several(tmp_path):
    sets = read(tmp_path, f"id,rle\nslide,{A}\nslide,{B}\nslide2,{runs(FIRST, THIRD)}\n")
    assert [item.geometry.area for item in sets.by_slide["slide"].items] == [64, 64]
    assert [item.geometry.area for item in sets.by_slide["slide2"].items] == [64 + 25]
    one_row_each = read(tmp_path, f"id,class,rle\nslide,a,{runs(FIRST, THIRD)}\nslide,b,{B}\n")
    assert [item.geometry.area for item in one_row_each.by_slide["slide"].items] == [64, 25, 64]


BOX = st.tuples(st.integers(0, 35), st.integers(0, 25), st.integers(1, 9), st.integers(1, 9))
IMAGES = st.lists(st.lists(BOX, min_size=1, max_size=3), min_size=1, max_size=4)


@given(
    images=IMAGES, dialect=st.sampled_from(["absolute", "relative"]), seed=st.integers(0, 99),
    empty=st.sampled_from(["", "-1"]),
)  # fmt: skip
def test_the_dialect_is_reported_from_all_rows(tmp_path_factory, images, dialect, seed, empty):
    """Whatever order rows and absolute runs have, and whichever rows are empty."""
    masks = [runs(*boxes, dialect=dialect) for boxes in images]
    if dialect == "absolute":
        pairs = [np.array(text.split()).reshape(-1, 2) for text in masks]
        shuffled = [np.random.default_rng(seed).permutation(p) for p in pairs]
        masks = [" ".join(pair.ravel()) for pair in shuffled]
    listed = [*(f"slide,{text}" for text in masks), f"slide2,{empty}", "elsewhere,-1"]
    rows = np.random.default_rng(seed).permutation(listed)
    sets = read(tmp_path_factory.mktemp("d"), "\n".join(["id,rle", *rows]), dialect=dialect)
    expected = np.any([mask(*boxes) for boxes in images], axis=0)
    assert np.array_equal(drawn(sets.by_slide["slide"]) > 0, expected)
    try:
        reported = read(tmp_path_factory.mktemp("d"), "\n".join(["id,rle", *rows]))
    except AnnotationError as error:
        assert "--rle" in str(error)  # noqa: PT017
        return
    if np.array_equal(drawn(reported.by_slide["slide"]) > 0, expected):
        return
    assert dialect == "relative"
    assert "runs are read as absolute; relative matches, too (--rle relative)" in reported.notes


def test_a_row_of_minus_one_tells_nothing(tmp_path):
    for order in (f"slide,{A}\nslide2,-1", f"slide2,-1\nslide,{A}"):
        sets = read(tmp_path, f"ImageId, EncodedPixels\n{order}\n")
        assert_drawn(sets, FIRST)
        assert sets.by_slide["slide2"].items == ()
    relative = runs(FIRST, THIRD, dialect="relative")
    assert_drawn(read(tmp_path, f"id,rle\nslide,{relative}\nslide2,-1\n"), FIRST, THIRD)
    sets = read(tmp_path, "id,rle\nslide,-1\nslide2,\n")
    assert set(sets.by_slide) == {"slide", "slide2"}


def test_names_of_images_fit_slides_by_the_one_rule(tmp_path):
    text = f"id,rle\nslide.7,{C}\nC:\\data\\Slide.TIF,{A}\nslide2.ome.tif,{B}\n"
    sets = read(tmp_path, text)
    assert_drawn(sets, FIRST)
    assert_drawn(sets, TOUCHING, slide="slide2")
    assert sets.unmatched == ("slide.7",)
    with pytest.raises(AnnotationError, match=r"'a/slide' and 'b/slide.tif', which both match"):
        read(tmp_path, f"id,rle\na/slide,{A}\nb/slide.tif,{B}\n")
    assert read(tmp_path, f"id,rle\nother,{A}\n").unmatched == ("other",)


def test_a_quote_that_runs_past_the_first_line_is_named(tmp_path):
    path = tmp_path / "a.csv"
    for text in ('rle,",id\nid",\n', 'id,rle,"class\nslide,1 2",\n'):
        path.write_text(text)
        with pytest.raises(AnnotationError, match="column name that continues after line 1"):
            read_for_slides(path, EXTENTS)
