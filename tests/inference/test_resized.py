"""Slides fitted to the model's square, and slices seen with their neighbours, from end to end."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.cards import make_card
from wsi_seg.classes import ClassTable
from wsi_seg.data.source import PatchSource
from wsi_seg.geometry import Extent, Region
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.resample import restore
from wsi_seg.inference.run import infer_with
from wsi_seg.inference.strips import Strip
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

OPTIONS = InferOptions(precision="fp32", batch=4)


def make_store(collection, name, height, width):
    create_collection(collection)
    grey = np.random.default_rng(list(name.encode())).integers(
        0, 256, (height, width, 1), dtype=np.uint8
    )
    pixels, extents = np.repeat(grey, 3, axis=-1), [Extent(height=height, width=width)]
    write_image(collection / name, pixels, {}, mpp=None, extents=extents)


class Last(torch.nn.Module):
    """Network whose logits are its last channel."""

    def forward(self, x):
        return x[:, -1:]


def card(**changes):
    return make_card("only", **({"mpp": None, "mean": (0.0,) * 3, "std": (0.1,) * 3} | changes))


def whole(fitted, native, rows=1000):
    rows_of = Strip(0, fitted).at_size(native)
    return np.concatenate([strip for _, strip in restore(rows_of, native, rows)])


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 90), st.integers(1, 90),
    st.integers(0, 255),
)  # fmt: skip
def test_a_constant_stays_the_same_at_any_size(height, width, full_height, full_width, value):
    fitted = np.full((height, width, 2), value, np.uint8)
    restored = whole(fitted, Extent(height=full_height, width=full_width))
    assert restored.shape == (full_height, full_width, 2)
    assert (restored == value).all()


def test_places_are_kept_and_strips_do_not_show():
    y, x = np.mgrid[:80, :80]
    fitted = np.stack([y * 3, x * 3], axis=-1).astype(np.uint8)
    restored = whole(fitted, Extent(height=94, width=172))
    assert np.array_equal(restored, whole(fitted, Extent(height=94, width=172), rows=7))
    expected = (np.arange(172) + 0.5) / 172 * 80 - 0.5
    inside = slice(2, -2)
    assert np.abs(restored[50, inside, 1] - 3 * expected[inside]).max() <= 0.51
    assert np.array_equal(whole(fitted, Extent(height=80, width=80)), fitted)


@pytest.mark.parametrize(("resize", "tiles"), [("stretch", 1), ("pad", 1), ("crop", 3)])
def test_the_result_of_a_resized_slide_has_the_slides_own_size(tmp_path, resize, tiles):
    make_store(tmp_path / "store.zarr", "crop", 94, 171)
    stores = list(open_collection(tmp_path / "store.zarr"))
    out = tmp_path / "pred.zarr"
    report = infer_with(
        (Last(), card(resize=resize, mean=(0.5,) * 3)), stores, out, OPTIONS, progress=Silent()
    )
    found = open_predictions(out)["crop"]
    assert found.pyramid.extent == Extent(height=94, width=171)
    assert (report.slides[0].height, report.slides[0].width) == (94, 171)
    assert report.tiles == tiles
    ids = found.label("prediction").read(Region(level=0, y=0, x=0, height=94, width=171))
    assert ids.shape == (94, 171)
    assert set(np.unique(ids)) == {0, 1}


def test_a_model_of_slices_sees_those_above_and_below(tmp_path):
    for z in range(3):
        make_store(tmp_path / "store.zarr", f"ct_z{z:04d}", 64, 64)
    stores = list(open_collection(tmp_path / "store.zarr"))
    out = tmp_path / "pred.zarr"
    infer_with((Last(), card(context_slices=1)), stores, out, OPTIONS, progress=Silent())
    found = open_predictions(out)
    region = Region(level=0, y=0, x=0, height=64, width=64)
    for z, above in ((0, 1), (1, 2), (2, 2)):
        seen = found[f"ct_z{z:04d}"].image.read(region)[..., 0]
        grey = stores[above].image.read(region)[..., 0] / 255 / 0.1
        assert np.abs(seen / 255 - 1 / (1 + np.exp(-grey))).max() < 0.01


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_labels_keep_their_place_at_320_x_480_and_back(tmp_path, resize):
    """A file is tiled, its label learned from at 320 x 480, and found again at its own size."""
    drawn = np.zeros((500, 900), dtype=np.uint8)
    drawn[300:420, 120:300] = 255  # left of the middle, and below
    grey = np.where(drawn, 220, 30).astype(np.uint8)
    for folder, pixels in (("images", grey), ("masks", drawn)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "one.png")
    tile_slides([tmp_path / "images"], tmp_path / "store.zarr")
    collection = open_collection(tmp_path / "store.zarr")
    annotate(collection, [tmp_path / "masks"], reading=Reading(default_class="only"))
    (store,) = collection
    model = Last(), card(resize=resize, resize_px=(320, 480), tile_px=128, mean=(0.5,) * 3)
    view = model[1].view()
    seen = view.scale(store.pyramid, name="one").extent
    assert seen.height == 320 or seen.width == 480
    classes = ClassTable.named(list(store.label("annotations").classes.names))
    source = PatchSource.of(store, "annotations", classes=classes, view=view)
    image, label = source.patch(360, 210, 128)  # around the object, in pixels of the file
    middle = 40, 88
    assert label[middle[0] : middle[1], middle[0] : middle[1]].all()
    assert np.mean((image[..., 0] > 125) == (label == 1)) > 0.98
    assert 0 < label.mean() < 1
    report = infer_with(model, [store], tmp_path / "pred.zarr", OPTIONS, progress=Silent())
    assert report.tiles > 1
    found = open_predictions(tmp_path / "pred.zarr")["one"].label("prediction")
    region = Region(level=0, y=0, x=0, height=500, width=900)
    right = found.read(region) == (drawn > 0)
    assert right.mean() > 0.995


def test_a_crop_of_1716_by_942_is_stretched_and_brought_back(tmp_path):
    """The sizes of the STAS competition: to 800 x 800 and back, and the mask stays binary."""
    make_store(tmp_path / "store.zarr", "crop", 942, 1716)
    stores = list(open_collection(tmp_path / "store.zarr"))
    out = tmp_path / "pred.zarr"
    model = Last(), card(resize="stretch", tile_px=800, mean=(0.5,) * 3)
    infer_with(model, stores, out, OPTIONS, progress=Silent())
    ids = open_predictions(out)["crop"].label("prediction")
    assert ids.pyramid.extent == Extent(height=942, width=1716)
    px = ids.read(Region(level=0, y=0, x=0, height=942, width=1716))
    assert set(np.unique(px)) == {0, 1}
