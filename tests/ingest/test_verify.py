import pytest

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import sampled_regions, verify_slide
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection


@pytest.mark.parametrize("codec", ["verbatim", "zstd"])
def test_a_true_copy_passes_and_another_slide_does_not(tmp_path, codec):
    extents = [Extent(height=700, width=900), Extent(height=350, width=450)]
    write_coordinate_tiff(tmp_path / "a.tif", extents=extents)
    write_coordinate_tiff(tmp_path / "b.tif", extents=[Extent(height=900, width=700)])
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", codec=Codec(codec), progress=Silent())
    store = open_collection(tmp_path / "s.zarr")["a"]
    verified = verify_slide(store, tmp_path / "a.tif")
    assert verified.levels == 2
    assert verified.pixels > 20 * 256 * 256
    with pytest.raises(StoreError, match="level 0 has 900 x 700 px"):
        verify_slide(store, tmp_path / "b.tif")


def test_pixels_that_differ_are_found(tmp_path):
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=200, width=300)])
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", codec=Codec("zstd"), progress=Silent())
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "a.tif"
    write_coordinate_tiff(other, extents=[Extent(height=200, width=300)], codec="jpeg")
    with pytest.raises(StoreError, match=r"region level=0.*differs"):
        verify_slide(open_collection(tmp_path / "s.zarr")["a"], other)


def test_corners_are_always_among_the_samples():
    regions = sampled_regions(Extent(height=1000, width=2000), 0)
    assert {(0, 0), (0, 1744), (744, 0), (744, 1744)} <= {(r.y, r.x) for r in regions}
    assert all(region.inside(Extent(height=1000, width=2000)) for region in regions)
    assert len(sampled_regions(Extent(height=1, width=1), 0)) == 1


def test_every_readable_file_of_the_shared_data_is_copied_right(shared_data, tmp_path):
    files = [
        *sorted((shared_data / "slides-small").glob("CMU*.svs")),
        *sorted((shared_data / "slides-small").glob("*.tiff")),
        shared_data / "slide-medium-oralscc" / "he-oralscc-8256x8064.tif",
        shared_data / "slide-large-larynx" / "he-larynx-26880x30144.tif",
    ]
    tile_slides(files, tmp_path / "s.zarr", progress=Silent()).require_whole()
    collection = open_collection(tmp_path / "s.zarr")
    for file in files:
        name = file.stem.removesuffix(".ome")
        assert verify_slide(collection[name], file).pixels > 0
