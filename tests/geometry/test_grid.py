from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import ConfigError
from wsi_seg.geometry import Extent, TileGrid, axis_starts


@given(st.integers(1, 400), st.integers(1, 64), st.data())
def test_tiles_cover_every_pixel_once_at_least_and_no_start_repeats(length, tile, data):
    stride = data.draw(st.integers(1, tile))
    starts = axis_starts(length, tile, stride)
    covered = np.zeros(max(length, tile), dtype=int)
    for start in starts:
        covered[start : start + tile] += 1
    assert (covered > 0).all()
    assert min(starts) == 0
    assert list(starts) == sorted(set(starts))
    assert all(b - a <= stride for a, b in pairwise(starts))
    assert len(starts) == max(0, -(-(length - tile) // stride)) + 1


@pytest.mark.parametrize("length", [1, 63, 64, 65, 96, 127, 128, 129, 160])
def test_awkward_sizes(length):
    starts = axis_starts(length, 64, 32)
    assert starts[-1] == max(0, length - 64)


def test_stride_beyond_the_tile_is_refused():
    with pytest.raises(ConfigError, match="stride=65"):
        axis_starts(100, 64, 65)


def test_grid_yields_regions_row_by_row():
    grid = TileGrid(Extent(height=100, width=150), 64, 64, level=1)
    regions = list(grid)
    assert len(grid) == len(regions) == 6
    assert [(r.y, r.x) for r in regions[:4]] == [(0, 0), (0, 64), (0, 86), (36, 0)]
    assert {r.level for r in regions} == {1}
