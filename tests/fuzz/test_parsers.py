"""Parsers on made-up input: they give what they promise or one error of ours.

`make test` tries a few inputs of each, `make fuzz` twenty thousand. Inputs that once found a defect
are kept as examples.
"""

import base64
import io
import json
import re
import struct
import tempfile
import zlib
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from tests.makers.coordinates import write_coordinate_tiff
from tests.makers.dicoms import write_dicom_level
from wsi_seg.annotations import AnnotationSets, read_annotations, read_for_slides
from wsi_seg.annotations.names import SlideNames
from wsi_seg.annotations.rle import read_runs
from wsi_seg.codestreams.headers import jpeg2k_transforms
from wsi_seg.codestreams.lengths import trim_stream
from wsi_seg.config import load_recipe
from wsi_seg.errors import (
    AnnotationError,
    CheckpointError,
    ConfigError,
    SlideError,
    StoreError,
)
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.outlines import is_mask, outline_mask
from wsi_seg.models.tensors import read_tensors, select_network, strip_prefixes
from wsi_seg.slides import open_slide
from wsi_seg.slides.vendors import associated_kind, ome_images
from wsi_seg.store.shards import MISSING, read_index

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


def mask_bytes(kind):
    ids = np.zeros((40, 30), np.uint8)
    ids[3:20, 5:25] = 1
    ids[22:38, 5:25] = 2
    file = io.BytesIO()
    if kind == "png":
        Image.fromarray(ids).save(file, "PNG")
    elif kind == "pages":
        tifffile.imwrite(file, ids, tile=(16, 16), compression="zlib", photometric="minisblack")
    else:
        tifffile.imwrite(file, ids.astype(np.int32), photometric="minisblack")
    return file.getvalue()


MASKS = [mask_bytes("png"), mask_bytes("pages"), mask_bytes("numbers")]


def planes_bytes():
    """Three grey pages with a thumbnail in front, an orientation and a fill value."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.tif"
        tags = [(274, "H", 1, 6, True), (42113, "s", 0, "7", True), (285, "s", 0, "slide", True)]
        pixels = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(pixels[::4, ::4], subfiletype=1, metadata=None, description="thumbnail")
            for _ in range(3):
                tiff.write(pixels, tile=(32, 32), extratags=tags, photometric="minisblack",
                           metadata=None, resolution=(20_000, 20_000))  # fmt: skip
        return path.read_bytes()


TIFFS = [
    tiff_bytes("deflate", "pages"), tiff_bytes("jpeg", "subifds"), tiff_bytes("lzw", "svs"),
    planes_bytes(),
]  # fmt: skip


@given(
    which=st.integers(0, 3),
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
            shown = {"height": min(64, extent.height), "width": min(64, extent.width)}
            found = slide.read(Region(level=0, y=0, x=0, **shown))
            assert found.shape == (shown["height"], shown["width"], 3)
            assert slide.pyramid.mpp is None or 0 < slide.pyramid.mpp < 1e4
    except SlideError as error:
        message = str(error)
    else:
        return
    assert "a.tif" in message


OME = b"""<OME><Image Name="macro"><Pixels SizeX="9" PhysicalSizeX="0,25" PhysicalSizeY="1e9"
PhysicalSizeXUnit="nm"><Channel Name="DAPI" SamplesPerPixel="3"/></Pixels></Image></OME>"""


@given(
    edits=st.lists(st.tuples(st.integers(0, len(OME) - 1), st.integers(0, 255)), max_size=8),
    number=st.text(alphabet="0123456789,.eE+- ", max_size=12),
)
def test_sizes_and_names_in_ome(edits, number):
    data = bytearray(OME.replace(b"0,25", number.encode()))
    for place, value in edits:
        data[place % len(data)] = value
    for image in ome_images(data.decode("utf-8", "replace")):
        mpp = image.resolution.mpp
        assert mpp is None or 0 < mpp < 1e4
        kinds = {"", "label", "macro", "thumb", "thumbnail", "overview", "preview"}
        assert associated_kind(image.name) in kinds


@given(
    data=st.binary(max_size=300),
    kind=st.sampled_from(["raw", "lzw", "deflate", "zstd"]),
    nbytes=st.integers(1, 400),
)
def test_lengths_of_streams(data, kind, nbytes):
    try:
        found = trim_stream(data, kind, nbytes)
    except (ValueError, RuntimeError, zlib.error):
        return
    assert kind != "raw" or len(found) <= nbytes
    assert trim_stream(found, kind, nbytes) == found


@given(st.binary(max_size=60))
@example(b"\xff\x4f\xff\x52\x00\x00")
@example(b"\0\0\0\x0cjP  \0\0\0\x01jp2c")
def test_transforms_of_jpeg_2000(data):
    assert jpeg2k_transforms(data) in {True, False}


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
    assert index is not None
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


def png_bytes():
    file = io.BytesIO()
    Image.fromarray(np.eye(3, dtype=bool)).save(file, "PNG")
    return file.getvalue()


NUMBERS = st.one_of(st.integers(-9, 99), st.floats(), st.text(max_size=3), st.none())
RINGS = st.lists(st.lists(NUMBERS, max_size=3), max_size=7)
NAMES = st.one_of(NUMBERS, st.lists(st.one_of(NUMBERS, st.lists(NUMBERS, max_size=2)), max_size=3))
AREAS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["Polygon", "MultiPolygon", "Point", "Circle", 7]),
        "coordinates": st.recursive(RINGS, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    }
)
GEOMETRIES = st.recursive(
    AREAS,
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.just("GeometryCollection"),
            "geometries": st.one_of(NUMBERS, st.lists(inner, max_size=3)),
        }
    ),
    max_leaves=3,
)
PROPERTIES = st.dictionaries(
    st.sampled_from(["classification", "class", "label", "weight", "source"]),
    st.one_of(NAMES, st.dictionaries(st.sampled_from(["name", "names"]), NAMES)),
)
FEATURES = st.recursive(
    st.fixed_dictionaries(
        {"geometry": st.one_of(st.none(), GEOMETRIES), "properties": PROPERTIES},
        optional={"nucleusGeometry": NUMBERS, "type": st.sampled_from(["Feature", "Cell", None])},
    ),
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.just("Feature"),
            "properties": st.fixed_dictionaries({"childObjects": st.lists(inner, max_size=3)}),
            "children": st.one_of(NUMBERS, st.lists(inner, max_size=2)),
        }
    ),
    max_leaves=4,
)
PACKED = st.sampled_from(
    ["", "AAAA", "iVBORw0KGgo=", base64.b64encode(png_bytes()).decode(), "\u00e9"]
)
SHAPES = st.fixed_dictionaries(
    {
        "label": NUMBERS,
        "points": RINGS,
        "shape_type": st.sampled_from(
            ["polygon", "circle", "mask", "rectangle", "rotation", None, 3]
        ),
    },
    optional={"mask": st.one_of(NUMBERS, PACKED)},
)
IMAGES = st.fixed_dictionaries(
    {"id": NUMBERS, "file_name": st.one_of(NUMBERS, st.sampled_from(["s", "a/s.tif", "S.PNG"]))},
    optional={"height": NUMBERS, "width": NUMBERS},
)
DRAWN = st.fixed_dictionaries(
    {"image_id": NUMBERS, "category_id": NUMBERS},
    optional={"segmentation": st.one_of(NUMBERS, RINGS)},
)
DOCUMENTS = st.one_of(
    st.lists(FEATURES, max_size=4),
    GEOMETRIES,
    st.fixed_dictionaries(
        {
            "type": st.just("FeatureCollection"),
            "features": st.one_of(NUMBERS, st.lists(st.one_of(FEATURES, GEOMETRIES))),
        }
    ),
    st.fixed_dictionaries({"shapes": st.lists(SHAPES), "imageHeight": NUMBERS}),
    st.fixed_dictionaries({"positive": NUMBERS, "negative": st.lists(SHAPES)}),
    st.fixed_dictionaries(
        {
            "images": st.lists(st.one_of(NUMBERS, IMAGES)),
            "annotations": st.lists(st.one_of(PROPERTIES, DRAWN)),
            "categories": st.one_of(NUMBERS, st.lists(IMAGES)),
        }
    ),
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
        found = read_for_slides(path, {"s": Extent(height=9, width=9)}, default_class="a")
    except AnnotationError as error:
        message = str(error)
    else:
        sets = found.by_slide.values() if isinstance(found, AnnotationSets) else [found]
        items = [item for one in sets for item in one.items]
        assert all(item.geometry.is_valid and item.geometry.area > 0 for item in items)
        return
    assert "a.json" in message


CELLS = st.one_of(
    st.sampled_from(
        ["id", "ImageId", "rle", "EncodedPixels", "height", "img_width", "class", "ImageId_ClassId",
         "seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "s", "S.TIF", "t_1", "-1", "",
         "1 3", "2 1 1 4", "9 2 1 3", "1 9999999", "4", "8.0", '"', '""', "nan", "\u00e9"]
    ),
    st.text(max_size=4),
)  # fmt: skip


@given(
    rows=st.lists(st.lists(CELLS, max_size=6), max_size=6),
    separator=st.sampled_from(",;\t|"),
    line=st.sampled_from(["\n", "\r\n", "\r\r\n", "\r", "\n\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    dialect=st.sampled_from([None, "absolute", "relative"]),
)
@example([["id", "rle"]], ",", "\n", "utf-8", None)
@example([["id", "rle"], ["s", "1 3 9 2"]], ";", "\r\r\n", "utf-16", None)
@example([["ImageId_ClassId", "rle"], ["s_", "1 3"], ["s_1", ""]], ",", "\n", "utf-8", "absolute")
def test_tables(folder, rows, separator, line, encoding, dialect):
    path = folder / "a.csv"
    text = line.join(separator.join(row) for row in rows)
    path.write_bytes(text.encode(encoding, "replace"))
    extents = {"s": Extent(height=4, width=8), "t": Extent(height=7, width=3)}
    try:
        sets = read_for_slides(path, extents, default_class="a", dialect=dialect)
    except AnnotationError as error:
        message = str(error)
    else:
        assert isinstance(sets, AnnotationSets)
        assert set(sets.by_slide) <= set(extents)
        for name, found in sets.by_slide.items():
            for item in found.items:
                x, y, x_end, y_end = item.geometry.bounds
                assert 0 <= x < x_end <= extents[name].width
                assert 0 <= y < y_end <= extents[name].height
        return
    assert "a.csv" in message


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["_0", "_2", "Exclusion", "None", "", "a", "b"]),
            st.lists(st.tuples(st.integers(-9, 30), st.integers(-9, 30)), max_size=6),
        ),
        max_size=4,
    ),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["a", "b", "Exclusion", "None"]))),
    st.sampled_from(["utf-8", "utf-16", "utf-16-be", "utf-32", "latin-1", "hex", "\u00e9"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
def test_xml(folder, outlines, groups, declared, encoding):
    drawn = "".join(
        f'<Annotation Type="Polygon" PartOfGroup="{group}"><Coordinates>'
        + "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in points)
        + "</Coordinates></Annotation>"
        for group, points in outlines
    )
    listed = "".join(f'<Group Name="{name}" PartOfGroup="{of}"/>' for name, of in groups)
    text = f'<?xml version="1.0" encoding="{declared}"?><ASAP_Annotations>{drawn}{listed}'
    path = folder / "a.xml"
    path.write_bytes(f"{text}</ASAP_Annotations>".encode(encoding, "replace"))
    try:
        found = read_annotations(path, default_class="a")
    except AnnotationError as error:
        message = str(error)
    else:
        assert all(item.geometry.is_valid and item.geometry.area > 0 for item in found.items)
        return
    assert "a.xml" in message


@given(
    names=st.lists(st.text(max_size=8), max_size=5),
    slides=st.lists(st.text(min_size=1, max_size=8), max_size=5),
)
@example(names=["http://[x/s.tif"], slides=["s"])
@example(names=["\u0130.TIF", "i\u0307"], slides=["i\u0307"])
def test_names(names, slides):
    try:
        found, unmatched = SlideNames(slides).assign(Path("a.csv"), names)
    except AnnotationError as error:
        message = str(error)
    else:
        assert sorted([*found, *unmatched]) == sorted(set(names))
        assert len(set(found.values())) == len(found)
        assert set(found.values()) <= set(slides)
        return
    assert "a.csv" in message


@given(
    which=st.integers(0, 2),
    edits=st.lists(
        st.tuples(st.integers(0, 700), st.sampled_from("BHI"), st.integers(0, 2**32 - 1)),
        min_size=1,
        max_size=4,
    ),
)
def test_masks(folder, which, edits):
    data = bytearray(MASKS[which])
    for place, form, value in edits:
        size = struct.calcsize(form)
        struct.pack_into(f"<{form}", data, min(place, len(data) - size), value % 256**size)
    path = folder / "a.mask"
    path.write_bytes(data)
    try:
        if not is_mask(path):
            return
        extent = Extent(height=40, width=30)
        found = outline_mask(path, extent, class_names=("a", "b"), default_class="a")
    except AnnotationError as error:
        message = str(error)
    else:
        assert all(item.geometry.is_valid and item.geometry.area > 0 for item in found.items)
        return
    assert "a.mask" in message


def dicom_bytes():
    """A slide of one frame whose spacing is written in 24 bytes."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.dcm"
        write_dicom_level(path, np.zeros((48, 64, 3), np.uint8), number=0, mpp=0.123456789)
        return path.read_bytes()


DICOM = dicom_bytes()
SPACING = re.search(rb"0\.000123456789\\0\.000123456789", DICOM)


@given(
    number=st.one_of(
        st.text(alphabet="0123456789,.eE+-\\ ", max_size=29),
        st.tuples(st.floats(1e-7, 1), st.floats(1e-7, 1)).map(
            lambda sizes: "\\".join(f"{size:.8f}" for size in sizes).replace(".", ",")
        ),
    ),
    edits=st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), max_size=4),
)
@example(number="0,0005\\0,0005", edits=[])
@example(number="1,000.5", edits=[])
def test_numbers_in_dicom(folder, number, edits):
    assert SPACING is not None
    text = number.encode().ljust(len(SPACING[0]))[: len(SPACING[0])]
    data = bytearray(DICOM.replace(SPACING[0], text))
    for place, value in edits:
        data[min(place, len(data) - 1)] = value
    path = folder / "fuzzed" / "a.dcm"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        with open_slide(path) as slide:
            assert slide.pyramid.mpp is None or 0 < slide.pyramid.mpp < 1e4
            slide.read(Region(level=0, y=0, x=0, height=1, width=1))
    except SlideError as error:
        message = str(error)
    else:
        return
    assert "a.dcm" in message


NAMES_OF_TENSORS = st.sampled_from(
    ["state_dict", "model", "module", "net", "ema", "loss_fn", "optimizer", "encoder", "decoder",
     "weight", "bias", "num_batches_tracked", "", ".", 0, 1]
)  # fmt: skip


@given(
    content=st.recursive(
        st.one_of(st.none(), st.integers(), st.just(torch.ones(1))),
        lambda inner: st.one_of(
            st.dictionaries(NAMES_OF_TENSORS, inner, max_size=5), st.lists(inner, max_size=3)
        ),
        max_leaves=12,
    ),
    names=st.lists(st.sampled_from(["encoder.weight", "decoder.weight", "weight"]), min_size=1,
                   unique=True),
)  # fmt: skip
@example(content={"model": {"weight": torch.ones(1)}, "ema": {"weight": torch.zeros(1)}},
         names=["weight"])  # fmt: skip
def test_weights_among_other_things(folder, content, names):
    path = folder / "a.pth"
    torch.save(content, path)
    try:
        tensors = read_tensors(path)
        found = select_network(tensors, names, source="a.pth")
    except CheckpointError as error:
        message = str(error)
        found = tensors = None
    if tensors is None:
        assert "a.pth" in message
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in strip_prefixes(tensors).values())
    ends = {name: [key for key in tensors if f".{key}".endswith(f".{name}")] for name in names}
    if found is None:
        assert len(names) > 1 or not ends[names[0]]
    else:
        assert set(found) == set(names)
        assert all(any(found[name] is tensors[key] for key in ends[name]) for name in names)


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
