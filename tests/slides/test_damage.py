"""Any byte of a file may be wrong: pixels or one SlideError, never a crash of another kind."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.makers.coordinates import write_coordinate_tiff
from tests.makers.dicoms import write_dicom_image, write_dicom_level
from tests.makers.omezarrs import write_ome_zarr
from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import find_slides, open_slide

PIXELS = (np.arange(70 * 90 * 3) * 37 % 251).astype(np.uint8).reshape(70, 90, 3)


def write_volume(path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(PIXELS[None, ..., 0].repeat(2, 0)), str(path))


def write_tiff(codec, layout="pages"):
    extents = (Extent(height=70, width=90), Extent(height=35, width=45))
    return lambda path: write_coordinate_tiff(
        path, extents=extents, codec=codec, layout=layout, tile_px=32
    )


# The writer, and the file of it that is damaged.
FAMILIES = {
    "full.dcm": (lambda path: write_dicom_level(path, PIXELS, number=0, frames="jpeg"), ""),
    "sparse.dcm": (lambda path: write_dicom_level(path, PIXELS, number=0, sparse=[0, 1]), ""),
    "plain.dcm": (lambda path: write_dicom_image(path, PIXELS[..., 0].astype(np.int16)), ""),
    "a.mha": (write_volume, ""),
    "a.nii": (write_volume, ""),
    "a.tif": (write_tiff("jpeg", "subifds"), ""),
    "b.tif": (write_tiff("lzw"), ""),
    "c.svs": (write_tiff("jpeg2000", "svs"), ""),
    "a.png": (lambda path: Image.fromarray(PIXELS).save(path), ""),
    "a.jpg": (lambda path: Image.fromarray(PIXELS).save(path), ""),
    "a.bmp": (lambda path: Image.fromarray(PIXELS).save(path), ""),
    "b.ome.zarr": (lambda path: write_ome_zarr(path, [PIXELS]), "zarr.json"),
    "c.ome.zarr": (lambda path: write_ome_zarr(path, [PIXELS], version="0.4"), ".zattrs"),
    "d.ome.zarr": (lambda path: write_ome_zarr(path, [PIXELS]), "0/zarr.json"),
    "e.ome.zarr": (lambda path: write_ome_zarr(path, [PIXELS]), "0/c/0/0/0"),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, (write, _) in FAMILIES.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    early=st.booleans(),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_is_pixels_or_one_sentence(originals, name, flips, early, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        original = originals / name
        (shutil.copytree if original.is_dir() else shutil.copyfile)(original, path)
        part = path / FAMILIES[name][1] if FAMILIES[name][1] else path
        data = bytearray(part.read_bytes())
        reach = min(len(data), 1500) if early else len(data)
        for place, value in flips:
            data[int(place * (reach - 1))] = value
        part.write_bytes(data if cut is None else data[: int(cut * len(data))])
        _read_or_refuse(path)


def _read_or_refuse(path):
    try:
        for slide in find_slides([path]):
            with open_slide(slide) as opened:
                extent = opened.pyramid.extent
                height, width = min(200, extent.height), min(200, extent.width)
                found = opened.read(Region(level=0, y=0, x=0, height=height, width=width))
                assert found.shape == (height, width, 3)
    except SlideError as error:
        message = str(error)
    else:
        return
    assert path.name in message
    assert "\n" not in message
