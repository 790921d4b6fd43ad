import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import ResolutionError
from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.reading.resample import area_taps, read_image, read_label, scale_for

PYRAMID = Pyramid(
    (Extent(height=1000, width=800), Extent(height=500, width=400), Extent(height=125, width=100)),
    mpp=0.5,
)


@pytest.mark.parametrize(
    ("mpp", "level", "extent"),
    [
        (None, 0, Extent(height=1000, width=800)),
        (0.5, 0, Extent(height=1000, width=800)),
        (0.45, 0, Extent(height=1000, width=800)),
        (1.0, 1, Extent(height=500, width=400)),
        (0.99, 1, Extent(height=500, width=400)),
        (2.0, 1, Extent(height=250, width=200)),
        (0.8, 0, Extent(height=625, width=500)),
        (8.0, 2, Extent(height=62, width=50)),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(mpp, level, extent):
    scale = scale_for(PYRAMID, mpp, name="a")
    assert (scale.level, scale.extent) == (level, extent)


def test_slides_that_cannot_serve_are_refused():
    with pytest.raises(ResolutionError, match=r"'a' has no mpp.*SLIDE --mpp X --overwrite`$"):
        scale_for(Pyramid((Extent(height=9, width=9),)), 0.5, name="a")
    with pytest.raises(
        ResolutionError, match=r"0\.5 um per pixel at its finest.*request an mpp of 0\.4167 or more"
    ):
        scale_for(PYRAMID, 0.25, name="a")


@given(full=st.integers(1, 400), data=st.data())
def test_weights_share_each_source_pixel_out_once(full, data):
    small = data.draw(st.integers(1, full))
    taps = area_taps(0, small, full=full, small=small)
    assert (taps.weights >= 0).all()
    assert (taps.weights.sum(axis=1) == 4096).all()
    shares = np.bincount(taps.pixels.ravel(), taps.weights.ravel(), minlength=full) / 4096
    assert len(shares) == full
    assert shares == pytest.approx(np.full(full, small / full), abs=3 / 4096)


@given(y=st.integers(0, 100), x=st.integers(0, 60), side=st.integers(1, 14))
def test_a_pixel_has_one_value_in_every_tile(store, y, x, side):
    scale = scale_for(store.pyramid, 0.87, name="a")
    whole = read_image(
        store.image, scale, 0, 0, height=scale.extent.height, width=scale.extent.width
    )
    part = read_image(store.image, scale, y, x, height=side, width=side)
    assert np.array_equal(part, whole[y : y + side, x : x + side])


def test_resampled_pixels_are_where_they_belong(store):
    scale = scale_for(store.pyramid, 0.8, name="a")
    part = read_image(store.image, scale, 20, 30, height=40, width=50)
    rows = (np.arange(20, 60) + 0.5) * 203 / scale.extent.height - 0.5
    columns = (np.arange(30, 80) + 0.5) * 151 / scale.extent.width - 0.5
    assert np.abs(part[:, 0, 0] - rows).max() <= 1
    assert np.abs(part[0, :, 1] - columns).max() <= 1


def test_a_level_that_fits_is_read_as_it_is(store, pixels):
    scale = scale_for(store.pyramid, 0.5, name="a")
    part = read_image(store.image, scale, 3, 5, height=20, width=30)
    assert np.array_equal(part, pixels[0][3:23, 5:35])


@given(height=st.integers(30, 203), y=st.integers(0, 20), x=st.integers(0, 10))
def test_labels_are_those_under_the_centres(store, height, y, x):
    extent = Extent(height=height, width=max(1, round(151 * height / 203)))
    label = store.label("annotations")
    got = read_label(label, extent, y, x, height=10, width=8)
    level = label.pyramid.level_at_or_below(203 / height)
    from_level = label.pyramid.extents[level]
    rows = ((np.arange(y, y + 10) + 0.5) * from_level.height / extent.height).astype(int)
    columns = ((np.arange(x, x + 8) + 0.5) * from_level.width / extent.width).astype(int)
    whole = read_label(label, from_level, 0, 0, height=from_level.height, width=from_level.width)
    assert np.array_equal(got, whole[np.ix_(rows, columns)])
