import dask.array
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import RegionError, ResolutionError


def bounds(length):
    return st.tuples(st.integers(0, length - 1), st.integers(1, length)).map(
        lambda pair: slice(min(pair), max(pair) if pair[0] != pair[1] else pair[1] + 1)
    )


@given(rows=bounds(203), columns=bounds(151))
def test_an_image_is_indexed_like_an_array(store, pixels, rows, columns):
    assert np.array_equal(store.image[rows, columns], pixels[0][rows, columns])
    assert np.array_equal(store.label("annotations")[rows, columns], pixels[1][rows, columns])


@pytest.mark.parametrize(
    "key",
    [5, -1, slice(3, 9), (slice(None), 7), (-3, -4), (2, 3), (slice(-20, None), slice(0, 4), 1)],
)
def test_whole_numbers_and_open_ends_are_those_of_numpy(store, pixels, key):
    assert np.array_equal(store.image[key], pixels[0][key])


@pytest.mark.parametrize("key", [slice(0, 10, 2), slice(5, 5), (0, slice(300, 400)), 203, "a"])
def test_what_cannot_be_read_is_refused_with_the_name(store, key):
    with pytest.raises(RegionError, match="slide"):
        store.image[key]


def test_levels_are_arrays_for_numpy_dask_and_zarr(store, pixels):
    image = store.image
    assert np.array_equal(np.asarray(image.level(0)), pixels[0])
    lazy = image.to_dask()
    assert isinstance(lazy, dask.array.Array)
    assert lazy.shape == (203, 151, 3)
    assert np.array_equal(lazy[10:90, 20:40].compute(scheduler="threads"), pixels[0][10:90, 20:40])
    assert store.label("annotations").to_dask(1).shape == (102, 76)
    channels_first = image.to_zarr(0)
    assert channels_first.shape == (3, 203, 151)
    assert np.array_equal(np.moveaxis(channels_first[:], 0, -1), pixels[0])
    assert channels_first.read_only


def test_a_slide_is_read_around_a_point_at_any_resolution(store, pixels):
    found = store.read(mpp=0.5, centre_um=(50.0, 40.0), size_px=(20, 30))
    assert np.array_equal(found, pixels[0][90:110, 65:95])
    coarse = store.read(mpp=1.0, centre_um=(50.0, 40.0), size_px=(10, 8))
    assert coarse.shape == (10, 8, 3)
    # Red is the row and green the column, so their means say where the pixels are from.
    assert abs(coarse[..., 0].mean() - 99.5) < 1
    assert abs(coarse[..., 1].mean() - 79.5) < 1


def test_what_is_outside_the_slide_is_refused_or_filled(store, pixels):
    with pytest.raises(RegionError, match=r"'slide': got 20 x 20 pixels around \(0, 0\) um"):
        store.read(mpp=0.5, centre_um=(0, 0), size_px=(20, 20))
    found = store.read(mpp=0.5, centre_um=(0, 0), size_px=(20, 20), fill=255)
    assert np.array_equal(found[10:, 10:], pixels[0][:10, :10])
    assert (found[:10] == 255).all()
    assert (found[:, :10] == 255).all()
    far = store.read(mpp=0.5, centre_um=(900, 900), size_px=(4, 6), fill=7)
    assert far.shape == (4, 6, 3)
    assert (far == 7).all()
    with pytest.raises(ResolutionError, match="at most"):
        store.read(mpp=0.1, centre_um=(50, 40), size_px=(8, 8))


def test_a_thumbnail_has_the_longer_side_that_is_asked_for(store):
    assert store.thumbnail(64).shape == (64, 48, 3)
    assert store.thumbnail(10_000).shape == (203, 151, 3)
