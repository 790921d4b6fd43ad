"""What we write, opened by ngff-zarr: a reader whose decoders (in Rust) are not those of zarr."""

import ngff_zarr
import numpy as np
import pytest
import tifffile

from wsi_seg.classes import ClassTable
from wsi_seg.exporting.omezarr import write_ome_zarr
from wsi_seg.exporting.outlines import outlines
from wsi_seg.geometry import Extent
from wsi_seg.ingest.plan import Codec
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection, open_predictions
from wsi_seg.testing.stores import write_image

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])


def levels(path):
    """Pixels of each level."""
    return [np.asarray(image.data) for image in ngff_zarr.from_ngff_zarr(str(path)).images]


def tiled(tmp_path, codec):
    pixels = np.random.default_rng(3).integers(0, 255, (700, 1300, 3), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, tile=(128, 128), compression="jpeg", photometric="ycbcr",
        metadata=None,
    )  # fmt: skip
    tile_slides([tmp_path / "a.tif"], tmp_path / "s.zarr", codec=codec, progress=Silent())
    (store,) = open_collection(tmp_path / "s.zarr")
    return store


def test_slides_that_were_recoded(tmp_path):
    store = tiled(tmp_path, Codec("zstd"))
    found = levels(store.path)
    assert len(found) == len(store.pyramid.extents) == 2
    for level, extent in enumerate(store.pyramid.extents):
        expected = store.image.read(extent.region(level))
        np.testing.assert_array_equal(np.moveaxis(found[level], 0, -1), expected)
    (tissue, _) = levels(store.path / "labels" / "tissue")
    np.testing.assert_array_equal(
        tissue, store.label("tissue").read(Extent.of(tissue.shape).region(0))
    )


def test_copied_jpeg_is_refused_by_the_name_of_its_codec(tmp_path):
    """No name for JPEG is registered; this fails on the day that ngff-zarr reads it."""
    with pytest.raises(Exception, match="imagecodecs_jpeg is not supported"):
        levels(tiled(tmp_path, Codec()).path)


@pytest.fixture
def prediction(tmp_path):
    """Ids and probabilities of two classes, and the store that has them."""
    path = tmp_path / "pred.zarr"
    create_collection(path)
    ids = np.repeat(np.repeat(np.random.default_rng(4).integers(0, 3, (9, 7)), 80, 0), 70, 1)
    ids = ids.astype(np.uint8)
    values = np.stack([(ids == n) * np.uint8(200) for n in (1, 2)], axis=2)
    about = {"classes": CLASSES.to_json()}
    write_image(path / "slide", values, about | {"kind": "prediction"})
    write_image(path / "slide" / "labels" / "prediction", ids, about | {"kind": "label"})
    return ids, values, open_predictions(path)["slide"]


def test_predictions_and_their_labels(prediction):
    ids, values, store = prediction
    np.testing.assert_array_equal(levels(store.path)[0], np.moveaxis(values, -1, 0))
    np.testing.assert_array_equal(levels(store.path / "labels" / "prediction")[0], ids)


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_exports(tmp_path, prediction, ngff):
    ids, values, store = prediction
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, store.image, outlines(store.label("prediction")), "slide", ngff=ngff)
    about = ngff_zarr.from_ngff_zarr(str(path)).metadata
    assert [axis.name for axis in about.axes] == ["c", "y", "x"]
    np.testing.assert_array_equal(levels(path)[0], np.moveaxis(values, -1, 0))
    np.testing.assert_array_equal(levels(path / "labels" / "classes")[0], ids)
    assert levels(path / "labels" / "objects")[0].dtype == np.uint32
