import numpy as np
import pytest

from wsi_seg.classes import ClassTable
from wsi_seg.config.augment import HsvConfig, OneOfConfig, StepConfig
from wsi_seg.data.augment import Augmenter, require_no_colour
from wsi_seg.data.source import PatchSource
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.geometry import Extent, Pyramid, Region, dyadic_extents
from wsi_seg.reading.resample import read_image
from wsi_seg.reading.view import View
from wsi_seg.store import StoreInfo, create_collection, open_collection
from wsi_seg.testing.stores import write_image


@pytest.mark.parametrize(
    ("resize", "expected"),
    [("stretch", (800, 800)), ("pad", (439, 800)), ("crop", (800, 1457))],
)
def test_a_slide_of_any_size_is_resized_to_the_square(resize, expected):
    pyramid = Pyramid((Extent(height=942, width=1716),), None)
    scale = View(None, resize=resize, side=800).scale(pyramid, name="crop")
    assert (scale.extent.height, scale.extent.width) == expected


@pytest.mark.parametrize(
    ("resize", "expected"),
    [("stretch", (320, 480)), ("pad", (263, 480)), ("crop", (320, 583))],
)
def test_a_slide_of_any_size_is_resized_to_sides_that_differ(resize, expected):
    """A step of one of the 39 competitions' solutions: all images to 320 x 480."""
    pyramid = Pyramid((Extent(height=942, width=1716),), None)
    view = View(None, resize=resize, side=128, resize_px=(320, 480))
    scale = view.scale(pyramid, name="crop")
    assert (scale.extent.height, scale.extent.width) == expected


def test_a_large_slide_is_resized_from_a_level_that_is_fine_enough():
    extents = dyadic_extents(Extent(height=4000, width=3000), 4)
    scale = View(None, resize="stretch", side=500).scale(Pyramid(extents, 0.5), name="slide")
    assert (scale.level, scale.extent) == (2, Extent(height=500, width=500))


def test_a_resized_patch_is_the_whole_slide_with_its_label(store, pixels):
    classes = ClassTable.named(["gland", "vessel"])
    view = View(None, resize="stretch", side=64)
    one = PatchSource.of(store, "annotations", classes=classes, view=view)
    image, label = one.patch(203 / 2, 151 / 2, 64)
    assert image.shape == (64, 64, 3)
    assert set(np.unique(label)) <= set(np.unique(pixels[1]))  # no new ids between ids
    # Red is the row, green the column: rows and columns are squeezed by factors of their own.
    assert abs(int(image[32, 0, 0]) - 32.5 * 203 / 64) <= 1
    assert abs(int(image[0, 32, 1]) - 32.5 * 151 / 64) <= 1


def test_a_padded_slide_is_in_the_middle_of_its_mirror_images(store):
    classes = ClassTable.named(["gland", "vessel"])
    view = View(None, resize="pad", side=64)
    one = PatchSource.of(store, "annotations", classes=classes, view=view)
    _, label = one.patch(203 / 2, 151 / 2, 64)
    width = round(64 * 151 / 203)
    before = (64 - width) // 2
    assert np.array_equal(label[:, :before], label[:, 2 * before : before : -1])
    last = before + width - 1
    past = 64 - 1 - last
    assert np.array_equal(label[:, last + 1 :], label[:, last - past : last][:, ::-1])


def test_enlarging_keeps_means_and_places(store):
    scale = View(None, resize="stretch", side=300).scale(store.pyramid, name="slide")
    big = read_image(store.image, scale, 0, 0, height=300, width=300)
    assert abs(int(big[150, 0, 0]) - 203 / 2) <= 1
    assert abs(int(big[0, 150, 1]) - 151 / 2) <= 1


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Five slices of which each is as bright as its number says; number 3 is missing."""
    collection = tmp_path_factory.mktemp("volume") / "store.zarr"
    create_collection(collection)
    for z in (0, 1, 2, 4):
        pixels = np.full((40, 50, 3), 10 * z, dtype=np.uint8)
        write_image(collection / f"ct_z{z:04d}", pixels, {"kind": "slide"}, mpp=None)
    return open_collection(collection)


@pytest.mark.parametrize(
    ("z", "context_slices", "expected"),
    [
        (0, 1, [0, 0, 10]),
        (1, 1, [0, 10, 20]),
        (2, 1, [10, 20, 20]),
        (1, 2, [0, 0, 10, 20, 20]),
        (4, 2, [40, 40, 40, 40, 40]),
    ],
)
def test_neighbours_are_channels_repeated_past_ends_and_gaps(volume, z, context_slices, expected):
    view = View(None, context_slices=context_slices)
    image = view.image(volume[f"ct_z{z:04d}"])
    px = image.read(Region(level=0, y=3, x=4, height=5, width=6))
    assert px.shape == (5, 6, view.channels)
    assert px[0, 0].tolist() == expected
    assert (px == px[0, 0]).all()
    around = np.zeros((7, 9, view.channels), dtype=np.uint8)
    image.read(Region(level=0, y=3, x=4, height=5, width=6), cached=False, out=around[1:6, 2:8])
    assert np.array_equal(around[1:6, 2:8], px)
    with pytest.raises(StoreError, match="got out"):
        image.read(Region(level=0, y=3, x=4, height=5, width=6), out=around)


@pytest.mark.parametrize(
    ("slice_mm", "step_mm", "expected"),
    [
        (1.0, 1.0, [30, 40, 50, 60, 70]),
        (0.5, 1.0, [10, 30, 50, 70, 90]),
        (2.5, 1.0, [40, 50, 50, 50, 60]),
        (2.5, 2.5, [30, 40, 50, 60, 70]),
        (0.6, 2.0, [0, 20, 50, 80, 90]),
    ],
)
def test_neighbours_are_millimetres_apart_whatever_the_volume(
    tmp_path, slice_mm, step_mm, expected
):
    """Ten slices, each as bright as ten times its number."""
    create_collection(tmp_path / "store.zarr")
    for z in range(10):
        pixels = np.full((8, 8, 3), 10 * z, dtype=np.uint8)
        info = StoreInfo(slice_mm=slice_mm).to_json()
        write_image(tmp_path / "store.zarr" / f"ct_z{z:04d}", pixels, info, mpp=1000.0)
    slides = open_collection(tmp_path / "store.zarr")
    view = View(None, context_slices=2, context_step_mm=step_mm)
    px = view.image(slides["ct_z0005"]).read(Region(level=0, y=0, x=0, height=8, width=8))
    assert px[0, 0].tolist() == expected


def test_a_volume_of_unknown_distance_is_refused_where_it_is_needed(volume):
    with pytest.raises(StoreError, match="the distance of its slices is unknown"):
        View(None, context_slices=1, context_step_mm=1.0).image(volume["ct_z0001"])


def test_only_slices_have_neighbours(store):
    with pytest.raises(StoreError, match="is not a slice of a volume"):
        View(None, context_slices=1).image(store)


def test_slices_have_no_colours_to_change():
    require_no_colour("d4")
    with pytest.raises(ConfigError, match="hsv"):
        require_no_colour("light")
    hidden = StepConfig(one_of=OneOfConfig(of=(StepConfig(hsv=HsvConfig()),)))
    with pytest.raises(ConfigError, match="hsv"):
        require_no_colour((hidden,))


def test_the_order_of_slices_can_be_reversed():
    flip = Augmenter((StepConfig.model_validate({"slice_flip": {"p": 1.0}}),))
    stack = np.arange(5, dtype=np.uint8).repeat(64).reshape(5, 8, 8).transpose(1, 2, 0)
    image, _ = flip(stack, np.zeros((8, 8), np.uint8), side=8, seeds=[1])
    assert image[0, 0].tolist() == [4, 3, 2, 1, 0]
