"""Parsers on made-up input: they give what they promise or one error of ours.

`make test` tries a few inputs of each, `make fuzz` twenty thousand. Inputs that once found a defect
are kept as examples.
"""

import json
import struct
import tempfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from wsi_seg.annotations import read_annotations
from wsi_seg.annotations.rle import read_runs
from wsi_seg.config import load_recipe
from wsi_seg.errors import AnnotationError, ConfigError, SlideError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import open_slide
from wsi_seg.store.shards import MISSING, read_index
from wsi_seg.testing.coordinates import write_coordinate_tiff

BIG = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.just(2**64 - 1))


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def tiff_bytes(codec, layout):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.tif"
        extents = (Extent(height=70, width=90), Extent(height=35, width=45))
        write_coordinate_tiff(path, extents=extents, codec=codec, layout=layout, tile_px=32)
        return path.read_bytes()


TIFFS = [tiff_bytes("deflate", "pages"), tiff_bytes("jpeg", "subifds"), tiff_bytes("lzw", "svs")]


@given(
    which=st.integers(0, 2),
    edits=st.lists(
        st.tuples(st.integers(0, 1500), st.sampled_from("BHIQ"), st.integers(0, 2**64 - 1)),
        min_size=1,
        max_size=6,
    ),
)
@example(which=0, edits=[(4, "I", 8)])
@example(which=0, edits=[(4, "I", 0xFFFFFFFF)])
@example(which=1, edits=[(2, "H", 43), (8, "Q", 2**64 - 1)])
def test_tiff_adoption(folder, which, edits):
    data = bytearray(TIFFS[which])
    for place, form, value in edits:
        size = struct.calcsize(form)
        struct.pack_into(f"<{form}", data, min(place, len(data) - 8), value % 256**size)
    path = folder / "a.tif"
    path.write_bytes(data)
    try:
        with open_slide(path) as slide:
            extent = slide.pyramid.extent
            size = {"height": min(64, extent.height), "width": min(64, extent.width)}
            found = slide.read(Region(level=0, y=0, x=0, **size))
            assert found.shape == (size["height"], size["width"], 3)
            assert slide.pyramid.mpp is None or 0 < slide.pyramid.mpp < 1e4
    except SlideError as error:
        message = str(error)
    else:
        return
    assert "a.tif" in message


@given(
    pairs=st.lists(st.tuples(BIG, BIG), min_size=1, max_size=6),
    body=st.binary(max_size=300),
    count=st.integers(1, 6),
    sealed=st.booleans(),
)
@example(pairs=[(2**64 - 2, 3)], body=b"", count=1, sealed=True)
@example(pairs=[(3, 2**64 - 1)], body=b"abc", count=1, sealed=True)
@example(pairs=[(2**64 - 1, 0)], body=b"", count=1, sealed=True)
def test_shard_index(folder, pairs, body, count, sealed):
    packed = np.array(pairs, "<u8").tobytes()
    crc = google_crc32c.value(packed) if sealed else 0
    path = folder / "0"
    path.write_bytes(body + packed + crc.to_bytes(4, "little"))
    try:
        index = read_index(path, count)
    except StoreError:
        return
    assume(count == len(pairs))
    present = index[index[:, 0] != MISSING]
    assert all(int(offset) + int(size) <= len(body) for offset, size in present)


@given(
    text=st.one_of(
        st.text(alphabet="0123456789 -+.eE\t\n", max_size=80),
        st.lists(st.integers(-3, 2**64).map(str), max_size=8).map(" ".join),
        st.text(max_size=20),
    ),
    dialect=st.sampled_from(["absolute", "relative"]),
)
@example(text="9223372036854775807 9223372036854775807", dialect="absolute")
@example(text="1 9223372036854775807 1 9223372036854775807", dialect="relative")
@example(text="0 4", dialect="absolute")
def test_rle(text, dialect):
    try:
        runs = read_runs(text, dialect=dialect)
    except AnnotationError:
        return
    assert (runs[:, 0] >= 0).all()
    assert (runs[:, 1] > runs[:, 0]).all()
    assert (runs[1:, 0] >= runs[:-1, 1]).all()


NUMBERS = st.one_of(st.integers(-9, 99), st.floats(), st.text(max_size=3), st.none())
RINGS = st.lists(st.lists(NUMBERS, max_size=3), max_size=7)
GEOMETRIES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["Polygon", "MultiPolygon", "Point", "Circle", 7]),
        "coordinates": st.recursive(RINGS, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    }
)
PROPERTIES = st.dictionaries(
    st.sampled_from(["classification", "class", "label", "weight", "source"]),
    st.one_of(NUMBERS, st.dictionaries(st.sampled_from(["name", "names"]), NUMBERS)),
)
SHAPES = st.fixed_dictionaries(
    {"label": NUMBERS, "points": RINGS, "shape_type": st.sampled_from(["polygon", "circle", 3])}
)
DOCUMENTS = st.one_of(
    st.lists(st.fixed_dictionaries({"geometry": GEOMETRIES, "properties": PROPERTIES})),
    st.fixed_dictionaries({"shapes": st.lists(SHAPES), "imageHeight": NUMBERS}),
    st.fixed_dictionaries({"positive": NUMBERS, "negative": st.lists(SHAPES)}),
    st.fixed_dictionaries({"images": st.lists(NUMBERS), "annotations": st.lists(PROPERTIES)}),
)


@given(st.one_of(DOCUMENTS.map(lambda found: json.dumps(found).encode()), st.binary(max_size=200)))
@example(b"\x1f\x8b\x08\x00\x00\x01\x02\x03")
@example(b'<ASAP_Annotations><Annotation Type="Polygon"><Coordinate Order="9999999999999"/>')
@example(b'[{"geometry": {"type": "MultiPolygon", "coordinates": [7]}}]')
@example(
    b'[{"geometry": {"type": "Polygon", "coordinates": []},'
    b' "properties": {"classification": {"names": 1}}}]'
)
def test_annotations(folder, content):
    path = folder / "a.json"
    path.write_bytes(content)
    try:
        found = read_annotations(path, default_class="a")
    except AnnotationError as error:
        message = str(error)
    else:
        assert all(item.geometry.is_valid and item.geometry.area > 0 for item in found.items)
        return
    assert "a.json" in message


WORDS = st.sampled_from(
    ["classes", "data", "mpp", "model", "train", "name", "stores", "encoder", "&a", "*a", "!!set",
     "!!binary", "!!int", "- ", ": ", "[", "]", "{", "}", "? ", "| ", "'", '"', "#", "\n", "\n  ",
     "1", "1.0", ".nan", "null", "gland", "s.zarr", "\t", "%YAML 1.1\n---\n", "9" * 5000]
)  # fmt: skip


@given(st.one_of(st.lists(WORDS, max_size=25).map("".join), st.text(max_size=60)))
@example("mpp: " + "9" * 5000)
@example("mpp: !!binary aGFsbG8=")
@example("mpp: !!timestamp 2000-99-99")
@example("{" * 5000)
@example("? {a: 1}\n: 2")
@example("!!int")
@example("mpp: !!bool maybe")
def test_recipes(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        load_recipe(path)
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert "recipe.yaml" in message
