"""OME-Zarr of others, and stores of our own, as slides."""

import json

import numpy as np
import pytest
import zarr

from tests.makers.coordinates import coordinate_pixels, write_coordinate_tiff
from tests.makers.omezarrs import write_ome_zarr
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.slides import open_slide
from wsi_seg.testing.conformance import check_slide

EXTENTS = (Extent(height=203, width=333), Extent(height=101, width=166))
LEVELS = [coordinate_pixels(e.region(i), e) for i, e in enumerate(EXTENTS)]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "cyx", "yxc", "xyc"])
def test_axes_are_taken_by_name(tmp_path, version, axes):
    write_ome_zarr(tmp_path / "a.ome.zarr", LEVELS, axes=axes, version=version, mpp=0.25)
    check_slide(tmp_path / "a.ome.zarr", LEVELS, mpp=0.25)
    slide = open_slide(tmp_path / "a.ome.zarr")
    assert (slide.name, slide.format) == ("a", f"ome-zarr {version}")
    assert slide.native_block(0) == Extent(height=64, width=48)


@pytest.mark.parametrize(("unit", "factor"), [("nanometer", 1e3), ("millimeter", 1e-3)])
def test_units_of_the_scale(tmp_path, unit, factor):
    write_ome_zarr(tmp_path / "a.zarr", LEVELS, mpp=0.5 * factor, unit=unit)
    assert open_slide(tmp_path / "a.zarr").pyramid.mpp == pytest.approx(0.5)
    write_ome_zarr(tmp_path / "b.zarr", LEVELS, mpp=0.5, unit="")
    assert open_slide(tmp_path / "b.zarr").pyramid.mpp is None


def test_grey_is_repeated(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", [level[..., :1] for level in LEVELS], axes="cyx")
    check_slide(tmp_path / "a.zarr", [np.repeat(level[..., :1], 3, axis=2) for level in LEVELS])
    write_ome_zarr(tmp_path / "b.zarr", [level[..., 0] for level in LEVELS], axes="yx")
    check_slide(tmp_path / "b.zarr", [np.repeat(level[..., :1], 3, axis=2) for level in LEVELS])


def test_clear_pixels_are_white(tmp_path):
    levels = [np.dstack([level, level[..., 0]]) for level in LEVELS]
    write_ome_zarr(tmp_path / "a.zarr", levels, axes="cyx")
    white = [np.where(level[..., :1] == 0, 255, level).astype(np.uint8) for level in LEVELS]
    check_slide(tmp_path / "a.zarr", white)


def test_a_store_of_our_own_is_a_slide(tmp_path):
    write_coordinate_tiff(tmp_path / "a.tif", extents=EXTENTS, mpp=0.5)
    tile_slides([tmp_path / "a.tif"], tmp_path / "store.zarr", progress=Silent())
    slide = open_slide(tmp_path / "store.zarr" / "a")
    found = slide.read(Region(level=0, y=0, x=0, height=203, width=333))
    assert np.array_equal(found, LEVELS[0])
    assert slide.pyramid.mpp == pytest.approx(0.5, rel=1e-3)


def test_the_first_image_of_bioformats2raw_is_taken(tmp_path):
    root = tmp_path / "a.zarr"
    zarr.open_group(root, mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(root / "0", LEVELS, version="0.4")
    write_ome_zarr(root / "1", [np.full((40, 40, 3), 9, np.uint8)], version="0.4")
    check_slide(root, LEVELS)


def refuse(path, match):
    with pytest.raises(SlideError, match=match):
        open_slide(path)


def test_other_layouts_are_refused_with_a_sentence(tmp_path):
    volume = [np.zeros((2, 40, 40), np.uint8)]
    write_ome_zarr(tmp_path / "z.zarr", volume, axes="zyx")
    refuse(tmp_path / "z.zarr", "got axes .*'z': 2.*save one plane")
    write_ome_zarr(tmp_path / "two.zarr", [np.zeros((40, 40, 2), np.uint8)])
    refuse(tmp_path / "two.zarr", "1, 3 or 4 channels")
    write_ome_zarr(tmp_path / "deep.zarr", [np.zeros((40, 40, 3), np.uint16)])
    refuse(tmp_path / "deep.zarr", "pixels of uint16; expected uint8")
    write_ome_zarr(tmp_path / "old.zarr", LEVELS, version="0.4")
    file = tmp_path / "old.zarr" / ".zattrs"
    file.write_text(file.read_text().replace('"0.4"', '"0.2"'))
    refuse(tmp_path / "old.zarr", "got OME-Zarr 0.2; expected 0.4 or 0.5")
    zarr.open_group(tmp_path / "plain.zarr", mode="w")
    refuse(tmp_path / "plain.zarr", "without multiscales")
    (tmp_path / "old.zarr" / ".zattrs").write_text("{")
    refuse(tmp_path / "old.zarr", r"old\.zarr: cannot be read as OME-Zarr")


def test_no_pickle_and_no_level_outside_of_the_group(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", LEVELS, version="0.4")
    file = tmp_path / "a.zarr" / "0" / ".zarray"
    document = json.loads(file.read_text())
    document["filters"] = [{"id": "pickle", "protocol": 5}]
    file.write_text(json.dumps(document))
    with pytest.raises(UnsupportedSlideError, match="pickle"):
        open_slide(tmp_path / "a.zarr")
    write_ome_zarr(tmp_path / "b.zarr", LEVELS)
    file = tmp_path / "b.zarr" / "zarr.json"
    file.write_text(file.read_text().replace('"path": "0"', '"path": "../a.zarr/1"'))
    refuse(tmp_path / "b.zarr", "expected a path inside the group")


def test_a_damaged_chunk_is_a_slide_error(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", LEVELS)
    (tmp_path / "a.zarr" / "0" / "c" / "1" / "1" / "1").write_bytes(b"no chunk")
    with pytest.raises(SlideError, match=r"a\.zarr: cannot be read"):
        open_slide(tmp_path / "a.zarr").read(Region(level=0, y=0, x=0, height=203, width=333))


def test_an_index_that_is_too_large_is_not_read(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", LEVELS)
    file = tmp_path / "a.zarr" / "0" / "zarr.json"
    document = json.loads(file.read_text())
    inner = document["codecs"]
    crc = {"name": "crc32c"}
    document["codecs"] = [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1] * len(document["shape"]),
                "codecs": inner,
                "index_codecs": [inner[0], crc],
                "index_location": "end",
            },
        }
    ]
    grid = document["chunk_grid"]["configuration"]
    grid["chunk_shape"] = [*document["shape"][:-2], 2**20, 2**20]
    file.write_text(json.dumps(document))
    refuse(tmp_path / "a.zarr", "got shards of 3,298,534,883,328 chunks")


def edited(path, edit, version="0.5"):
    """An image whose attributes are changed after it is written."""
    write_ome_zarr(path, LEVELS, mpp=0.5, version=version)
    file = path / ("zarr.json" if version == "0.5" else ".zattrs")
    document = json.loads(file.read_text())
    edit(document["attributes"] if version == "0.5" else document)
    file.write_text(json.dumps(document))
    return path


def test_attributes_of_0_4_in_zarr_v3_are_read(tmp_path):
    def moved(attributes):
        (scales,) = attributes.pop("ome")["multiscales"]
        attributes["multiscales"] = [scales | {"version": "0.4"}]

    check_slide(edited(tmp_path / "a.zarr", moved), LEVELS, mpp=0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"axes": ["c", "y", "x"]}, r"got axes \['c', 'y', 'x'\]; expected a list of objects"),
        ({"axes": None}, "got axes None"),
        ({"datasets": []}, r"got datasets \[\]; expected a list of levels"),
        ({"datasets": [{"path": 0}]}, "expected a list of levels with a path"),
        (
            {"coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]},
            r"got the scale \[0\.5, 0\.5\]; expected 3 numbers",
        ),
        ({"coordinateTransformations": [{"type": "scale"}]}, "got the scale None"),
        ({"datasets": [{"path": "1"}, {"path": "0"}]}, "no larger than the one before"),
        ({"version": "0.6"}, "got OME-Zarr 0.6"),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_of_another_form_are_named(tmp_path, version, change, said):
    def edit(attributes):
        if "version" in change and version == "0.5":
            attributes["ome"] |= change
            return
        (scales,) = attributes.get("ome", attributes)["multiscales"]
        scales |= change

    with pytest.raises(SlideError, match=said):
        open_slide(edited(tmp_path / "a.zarr", edit, version))
