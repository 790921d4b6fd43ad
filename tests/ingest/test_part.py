"""A part of a slide is tiled: its chunks are the slide's, and all others are missing."""

import numpy as np
import pytest

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.geometry import Extent
from wsi_seg.ingest.names import name_slides
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.inside import Inside
from wsi_seg.slides import open_slide
from wsi_seg.store import open_collection
from wsi_seg.store.arrays import read_level_array

EXTENTS = (Extent(height=1403, width=1333), Extent(height=701, width=666))


def tile(path, out, inside, codec="auto"):
    found = name_slides([path])
    part = type(found)(found.names, found.clashes, inside=inside)
    report = tile_slides(part, out, codec=Codec(codec))
    report.require_whole()
    return open_collection(out)["slide"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "slide.tif"
    write_coordinate_tiff(path, extents=EXTENTS, codec="deflate", tile_px=64)
    return path


@pytest.mark.parametrize("codec", ["verbatim", "zstd"])
def test_pixels_of_a_part_are_the_slides_and_others_are_not_there(path, tmp_path, codec):
    inside = Inside.parse(bbox="600,700,100,50")
    store = tile(path, tmp_path / "part", inside, codec)
    whole = tile(path, tmp_path / "whole", None, codec)
    sizes = [
        sum(file.stat().st_size for file in (one.path / "0/c").rglob("*") if file.is_file())
        for one in (store, whole)
    ]
    assert sizes[0] < sizes[1] / 2
    full = EXTENTS[0]
    with open_slide(path) as slide:
        for level, extent in enumerate(EXTENTS):
            there = inside.rows(None, full, extent)
            pixels, expected = (
                store.image.read(extent.region(level)),
                slide.read(extent.region(level)),
            )
            assert np.array_equal(pixels[there], expected[there])
            array = read_level_array(store.path / str(level))
            near = np.zeros(there.shape, bool)
            ys, xs = np.nonzero(there)
            rows = slice(ys[0] // array.chunk.height * array.chunk.height,
                         (ys[-1] // array.chunk.height + 1) * array.chunk.height)  # fmt: skip
            columns = slice(xs[0] // array.chunk.width * array.chunk.width,
                            (xs[-1] // array.chunk.width + 1) * array.chunk.width)  # fmt: skip
            near[rows, columns] = True
            assert (pixels[~near] == array.fill).all()
            assert np.array_equal(pixels[near], expected[near])


def test_the_part_is_the_tissue_and_a_rerun_with_another_one_is_refused(path, tmp_path):
    inside = Inside.parse(bbox="600,700,100,50")
    store = tile(path, tmp_path / "s", inside)
    mask = store.label("tissue")
    found = mask.read(mask.pyramid.extent.region()) > 0
    assert np.array_equal(found, inside.rows(None, EXTENTS[0], mask.pyramid.extent))
    assert store.info.inside == "box 600,700,100,50"
    assert tile(path, tmp_path / "s", inside).path == store.path
    for other in (None, Inside.parse(bbox="0,0,5,5")):
        with pytest.raises(StoreError, match="differs in inside; use --overwrite"):
            tile(path, tmp_path / "s", other)


def test_a_class_is_refused(path, tmp_path):
    with pytest.raises(ConfigError, match=r"not tiled yet.*GeoJSON"):
        tile(path, tmp_path / "s", Inside.parse("tumour"))
