import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import RegionError, ResolutionError
from wsi_seg.geometry import Extent, Pyramid


@given(
    st.integers(500, 100_000),
    st.integers(500, 100_000),
    st.sampled_from([2, 4, 8, 16]),
    st.booleans(),
)
def test_downsample_is_whole_whichever_way_the_writer_rounded(height, width, n, up):
    rounding = (lambda v: -(-v // n)) if up else (lambda v: v // n)
    pyramid = Pyramid(
        (
            Extent(height=height, width=width),
            Extent(height=rounding(height), width=rounding(width)),
        ),
        0.5,
    )
    assert pyramid.downsample(1) == n
    assert pyramid.level_mpp(1) == 0.5 * n


def test_downsample_keeps_a_true_fraction():
    pyramid = Pyramid((Extent(height=3000, width=2000), Extent(height=1154, width=769)))
    assert math.isclose(pyramid.downsample(1), 2.6, rel_tol=1e-3)
    assert pyramid.level_mpp(1) is None
    assert pyramid.extent == Extent(height=3000, width=2000)


def test_level_at_or_below_never_takes_a_coarser_level_than_asked():
    pyramid = Pyramid(
        (
            Extent(height=4096, width=4096),
            Extent(height=1024, width=1024),
            Extent(height=256, width=256),
        ),
        0.25,
    )
    assert [pyramid.level_at_or_below(d) for d in (0.5, 1, 3.9, 3.99, 4, 15, 16, 99)] == [
        0, 0, 0, 1, 1, 1, 2, 2,
    ]  # fmt: skip


def test_bad_pyramids_are_refused():
    with pytest.raises(RegionError, match="without levels"):
        Pyramid(())
    with pytest.raises(RegionError, match="no larger"):
        Pyramid((Extent(height=10, width=10), Extent(height=20, width=5)))
    with pytest.raises(ResolutionError, match="nan"):
        Pyramid((Extent(height=10, width=10),), float("nan"))
    with pytest.raises(ResolutionError, match=r"mpp=0\.0"):
        Pyramid((Extent(height=10, width=10),), 0.0)
    with pytest.raises(RegionError, match="level 1"):
        Pyramid((Extent(height=10, width=10),)).downsample(1)
