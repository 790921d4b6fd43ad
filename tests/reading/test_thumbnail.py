import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.memory import MemoryImage
from wsi_seg.geometry import Extent
from wsi_seg.reading import thumbnail as module
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import read_thumbnail


def test_pixels_are_area_means_whatever_the_bands(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (900, 1300, 3), dtype=np.uint8)
    expected = image.reshape(450, 2, 650, 2, 3).mean(axis=(1, 3))
    for band in (2**25, 1300 * 100):
        monkeypatch.setattr(module, "_BAND_PX", band)
        small = read_thumbnail(MemoryImage(image), Extent(height=450, width=650))
        assert np.abs(small - expected).max() <= 1


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 3000))
def test_the_longer_side_fits_and_nothing_grows(height, width, longest):
    size = thumbnail_extent(Extent(height=height, width=width), longest)
    assert max(size.height, size.width) <= longest
    assert size.height <= height
    assert size.width <= width
