"""Masks as pictures: how many a file holds, which way up, and which ids can be classes."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_seg.classes import ClassTable
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.outlines import outline_mask
from wsi_seg.masks.rasterize import Rasterizer

SIZE = Extent(height=60, width=80)


def ids(*boxes):
    found = np.zeros((SIZE.height, SIZE.width), np.uint8)
    for x, y, side, value in boxes:
        found[y : y + side, x : x + side] = value
    return found


ONE, OTHER = ids((5, 5, 20, 1)), ids((40, 30, 10, 1))
BOTH = ids((5, 5, 20, 1), (40, 30, 10, 2))


def drawn(path, *names):
    found = outline_mask(path, SIZE, class_names=names)
    region = Region(level=0, y=0, x=0, height=SIZE.height, width=SIZE.width)
    return Rasterizer(found.items, ClassTable.named(names)).draw(region, (1.0, 1.0))


def write_pages(path):
    with tifffile.TiffWriter(path) as tiff:
        for page in (ONE, OTHER):
            tiff.write(page, photometric="minisblack", metadata=None, contiguous=False)


STACKS = {
    "pages": write_pages,
    "pages of other kinds": lambda path: [
        tifffile.imwrite(path, page, append=bool(n), metadata=None, compression=["zlib", None][n])
        for n, page in enumerate((ONE, OTHER))
    ],
    "stack": lambda path: tifffile.imwrite(path, np.stack([ONE, OTHER]), photometric="minisblack"),
    "truncated": lambda path: tifffile.imwrite(
        path, np.stack([ONE, OTHER]), photometric="minisblack", truncate=True
    ),
    "imagej": lambda path: tifffile.imwrite(path, np.stack([ONE, OTHER]), imagej=True),
    "ome z": lambda path: tifffile.imwrite(
        path, np.stack([ONE, OTHER]), ome=True, metadata={"axes": "ZYX"}, photometric="minisblack"
    ),
    "ome c": lambda path: tifffile.imwrite(
        path, np.stack([ONE, OTHER]), ome=True, metadata={"axes": "CYX"}, photometric="minisblack"
    ),
    "volume": lambda path: tifffile.imwrite(
        path, np.zeros((2, 64, 80), np.uint8), volumetric=True, tile=(2, 16, 16), metadata=None
    ),
    "pillow": lambda path: Image.fromarray(ONE).save(
        path, format="TIFF", save_all=True, append_images=[Image.fromarray(OTHER)]
    ),
}


@pytest.mark.parametrize("kind", STACKS)
def test_several_pictures_in_one_file_are_refused(tmp_path, kind):
    STACKS[kind](tmp_path / "m.tif")
    with pytest.raises(AnnotationError, match=r"m\.tif: got 2 pages; expected one mask"):
        outline_mask(tmp_path / "m.tif", SIZE, class_names=("a", "b"))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_several_samples_are_refused(tmp_path, planar):
    samples = np.stack([ONE, OTHER], axis=-1 if planar == "contig" else 0)
    tifffile.imwrite(tmp_path / "m.tif", samples, photometric="minisblack", planarconfig=planar)
    with pytest.raises(AnnotationError, match=r"got 2 (channels|pages)"):
        outline_mask(tmp_path / "m.tif", SIZE, class_names=("a", "b"))


def test_an_animated_png_is_refused(tmp_path):
    frames = [Image.fromarray(page) for page in (ONE, OTHER)]
    frames[0].save(tmp_path / "m.png", save_all=True, append_images=frames[1:])
    with pytest.raises(AnnotationError, match="got 2 frames"):
        outline_mask(tmp_path / "m.png", SIZE, class_names=("a", "b"))


def write_pyramid(path, *, subifds, marked):
    with tifffile.TiffWriter(path) as tiff:
        common: Any = {"photometric": "minisblack", "tile": (16, 16), "metadata": None}
        tiff.write(BOTH, subifds=2 if subifds else None, **common)
        for step in (2, 4):
            tiff.write(BOTH[::step, ::step], subfiletype=int(marked), **common)


@pytest.mark.parametrize("subifds", [True, False])
@pytest.mark.parametrize("marked", [True, False])
def test_levels_of_one_mask_are_one_picture(tmp_path, subifds, marked):
    write_pyramid(tmp_path / "m.tif", subifds=subifds, marked=marked)
    assert np.array_equal(drawn(tmp_path / "m.tif", "a", "b"), BOTH)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_masks_are_refused(tmp_path, orientation):
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "m.tif", BOTH, extratags=tags, metadata=None)
    with pytest.raises(AnnotationError, match=f"orientation {orientation}"):
        outline_mask(tmp_path / "m.tif", SIZE, class_names=("a", "b"))
    tifffile.imwrite(tmp_path / "n.tif", BOTH, extratags=[(274, "H", 1, 1, True)], metadata=None)
    assert np.array_equal(drawn(tmp_path / "n.tif", "a", "b"), BOTH)


@pytest.mark.parametrize(
    ("dtype", "value"), [("int16", -1), ("int32", -5), ("uint32", 2**31), ("uint32", 2**32 - 1)]
)
def test_ids_that_cannot_be_objects_are_refused(tmp_path, dtype, value):
    numbers = ONE.astype(dtype)
    numbers[50:, 70:] = np.array(value).astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", numbers)
    with pytest.raises(AnnotationError, match=rf"got ids .*{value}.*; expected 0 to"):
        outline_mask(tmp_path / "m.tif", SIZE, default_class="a")


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32"])
def test_numbers_of_any_width_are_objects(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "m.tif", BOTH.astype(dtype) * 100)
    assert len(outline_mask(tmp_path / "m.tif", SIZE, default_class="a").items) == 2


@pytest.mark.parametrize("value", [1, 3, 255])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_one_value_is_the_only_class(tmp_path, value, kind):
    Image.fromarray(ONE * np.uint8(value)).save(tmp_path / "m", format=kind)
    assert np.array_equal(drawn(tmp_path / "m", "a"), ONE)


def test_255_alone_among_several_classes_is_ignored_and_reported(tmp_path):
    Image.fromarray(ONE * np.uint8(255)).save(tmp_path / "m.png")
    assert np.array_equal(drawn(tmp_path / "m.png", "a", "b"), ONE * np.uint8(255))
    found = outline_mask(tmp_path / "m.png", SIZE, class_names=("a", "b"))
    assert found.repairs == ("m.png: its only value, 255, is read as ignore",)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_keep_their_ids(tmp_path, bits):
    picture = Image.fromarray(BOTH if bits > 1 else ONE).convert("P")
    picture.putpalette([255, 255, 255, 9, 9, 9, 0, 128, 0])
    picture.save(tmp_path / "m.png", bits=bits, transparency=0)
    assert np.array_equal(drawn(tmp_path / "m.png", "a", "b"), BOTH if bits > 1 else ONE)


def test_a_png_cut_within_its_head_is_refused(tmp_path):
    head = struct.pack(">IIBBBBB", 80, 60, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    whole = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    (tmp_path / "m.png").write_bytes(whole + struct.pack(">I", zlib.crc32(chunk)))
    with pytest.raises(AnnotationError, match=r"m\.png cannot be read as a mask"):
        outline_mask(tmp_path / "m.png", SIZE, class_names=("a",))


@pytest.mark.parametrize("name", ["a#b?c.tif", "GTIFF_DIR:1:m.tif", "zip+x!y.tif", "%20.tif"])
def test_masks_of_any_name_are_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    tifffile.imwrite(tmp_path / name, BOTH)
    assert np.array_equal(drawn(Path(name), "a", "b"), BOTH)
