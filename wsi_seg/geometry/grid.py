"""Owns tile grids: the start positions of tiles in a level."""

from collections.abc import Iterator
from dataclasses import dataclass

from wsi_seg.errors import ConfigError
from wsi_seg.geometry.region import Extent, Region


def axis_starts(length: int, tile: int, stride: int) -> tuple[int, ...]:
    """Return the start positions of the tiles that cover one axis.

    Tiles start every ``stride`` pixels; the last one is shifted inwards to end with the axis. An
    axis shorter than a tile gets one tile, which extends beyond its end. Starts are unique and not
    negative. Their number is ``max(0, ceil((length - tile) / stride)) + 1``.

    Parameters
    ----------
    length, tile, stride
        Lengths in pixels of one level; ``1 <= stride <= tile``.
    """
    if tile < 1 or not 1 <= stride <= tile:
        raise ConfigError(f"got tile={tile}, stride={stride}; expected 1 <= stride <= tile")
    last = max(0, length - tile)
    return (*range(0, last, stride), last)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Grid of square tiles of one size that covers a level.

    Parameters
    ----------
    extent
        Size of the level.
    tile, stride
        Side of a tile and distance between tiles, in pixels of the level.
    level
        Level of the regions.

    Examples
    --------
    >>> grid = TileGrid(Extent(height=100, width=150), tile=64, stride=48)
    >>> len(grid), grid.ys, grid.xs
    (6, (0, 36), (0, 48, 86))
    """

    extent: Extent
    tile: int
    stride: int
    level: int = 0

    @property
    def ys(self) -> tuple[int, ...]:
        """Top rows of the tiles, ascending."""
        return axis_starts(self.extent.height, self.tile, self.stride)

    @property
    def xs(self) -> tuple[int, ...]:
        """Left columns of the tiles, ascending."""
        return axis_starts(self.extent.width, self.tile, self.stride)

    def __len__(self) -> int:
        return len(self.ys) * len(self.xs)

    def __iter__(self) -> Iterator[Region]:
        xs = self.xs
        for y in self.ys:
            for x in xs:
                yield Region(level=self.level, y=y, x=x, height=self.tile, width=self.tile)
