"""Owns hypothesis strategies for extents, pyramids, regions, tiles and overlaps."""

from hypothesis import strategies as st

from wsi_seg.geometry import Extent, Region

OVERLAPS = (0.0, 0.125, 0.25, 1 / 3, 0.5, 0.6, 0.75)


def extents(*, max_side: int = 200) -> st.SearchStrategy[Extent]:
    """Extents from 1 x 1 px on, mostly odd and not square."""
    side = st.integers(1, max_side)
    return st.builds(Extent, height=side, width=side)


def extents_around(tile: int, *, max_tiles: int = 3) -> st.SearchStrategy[Extent]:
    """Extents whose sides are whole numbers of tiles, give or take one pixel."""
    side = st.builds(
        lambda count, more: max(1, count * tile + more),
        st.integers(0, max_tiles),
        st.integers(-1, 1),
    )
    return st.builds(Extent, height=side, width=side)


def tiles(*, least: int = 1, greatest: int = 64) -> st.SearchStrategy[int]:
    """Sides of tiles in pixels."""
    return st.integers(least, greatest)


def overlaps(*, greatest: float = 0.75) -> st.SearchStrategy[float]:
    """Overlaps as fractions: the usual ones, and any between."""
    usual = [overlap for overlap in OVERLAPS if overlap <= greatest]
    return st.sampled_from(usual) | st.floats(0, greatest, allow_nan=False)


@st.composite
def regions(draw: st.DrawFn, extent: Extent, *, level: int = 0) -> Region:
    """Regions inside a level of this extent."""
    y, x = draw(st.integers(0, extent.height - 1)), draw(st.integers(0, extent.width - 1))
    return Region(
        level=level,
        y=y,
        x=x,
        height=draw(st.integers(1, extent.height - y)),
        width=draw(st.integers(1, extent.width - x)),
    )
