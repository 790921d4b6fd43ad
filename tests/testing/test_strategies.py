from hypothesis import given

from tests.makers import strategies
from wsi_seg.geometry import Extent


@given(strategies.extents_around(64), strategies.tiles(), strategies.overlaps(greatest=0.6))
def test_values_are_in_range(extent, tile, overlap):
    assert 1 <= extent.height <= 3 * 64 + 1
    assert 1 <= tile <= 64
    assert 0 <= overlap <= 0.6


@given(strategies.regions(Extent(height=17, width=1)))
def test_regions_are_inside(region):
    assert region.inside(Extent(height=17, width=1))
