"""Owns the two basic rectangles: Extent (the size of a level) and Region (a part of it)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wsi_seg.errors import RegionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Size of a level, in pixels of that level.

    Parameters
    ----------
    height, width
        Numbers of rows and columns, each at least 1.

    Examples
    --------
    >>> Extent(height=1000, width=2000).scaled(4)
    Extent(height=250, width=500)
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise RegionError(
                f"got an extent of {self.height} x {self.width} px (height x width); "
                "expected at least 1 x 1"
            )

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Extent":
        """Return the size of an array of shape ``(H, W)`` or ``(H, W, C)``.

        Examples
        --------
        >>> Extent.of((480, 640, 3))
        Extent(height=480, width=640)
        """
        return cls(height=shape[0], width=shape[1])

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def halved(self) -> "Extent":
        """Size of the next pyramid level: half, rounded up."""
        return Extent(height=-(-self.height // 2), width=-(-self.width // 2))

    def scaled(self, downsample: float) -> "Extent":
        """Return this size divided by ``downsample``, rounded, at least 1 px per side."""
        return Extent(
            height=max(1, round(self.height / downsample)),
            width=max(1, round(self.width / downsample)),
        )

    def region(self, level: int = 0) -> "Region":
        """Return the whole level as a region.

        Examples
        --------
        >>> print(Extent(height=2, width=3).region())
        region level=0 y=0 x=0 height=2 width=3
        """
        return Region(level=level, y=0, x=0, height=self.height, width=self.width)

    def strips(self, rows: int, level: int = 0) -> Iterator["Region"]:
        """Split the level into full-width strips, from top to bottom.

        Parameters
        ----------
        rows
            Height of each strip, at least 1; the last one may be smaller.
        level
            Level of the regions.

        Raises
        ------
        RegionError
            If ``rows`` is below 1.

        Examples
        --------
        >>> [strip.y for strip in Extent(height=1200, width=800).strips(512)]
        [0, 512, 1024]
        """
        return self.region(level).strips(rows)

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Half-open rectangle at one level, in pixels of that level.

    Pixel (0, 0) covers [0, 1) x [0, 1). ``y`` and ``x`` may be negative: such a region extends
    beyond the level, and the caller must clip or pad it.

    Parameters
    ----------
    level
        Pyramid level; 0 is the finest.
    y, x
        Top row and left column.
    height, width
        Size, each at least 1.

    Examples
    --------
    >>> region = Region(level=0, y=-8, x=0, height=64, width=64)
    >>> print(region.clip(Extent(height=100, width=100)))
    region level=0 y=0 x=0 height=56 width=64
    """

    level: int
    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.level < 0 or self.height < 1 or self.width < 1:
            raise RegionError(f"got {self}; expected level >= 0 and at least 1 x 1 px")

    @property
    def y_end(self) -> int:
        """First row below the region."""
        return self.y + self.height

    @property
    def x_end(self) -> int:
        """First column right of the region."""
        return self.x + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices ``(rows, columns)`` into an array of the whole level."""
        return slice(self.y, self.y_end), slice(self.x, self.x_end)

    def strips(self, rows: int) -> Iterator["Region"]:
        """Split the region into strips of its width, from top to bottom; see `Extent.strips`."""
        if rows < 1:
            raise RegionError(f"got strips of {rows} rows; expected at least 1")
        for y in range(self.y, self.y_end, rows):
            height = min(rows, self.y_end - y)
            yield Region(level=self.level, y=y, x=self.x, height=height, width=self.width)

    def inside(self, extent: Extent) -> bool:
        """Return whether the region is inside a level of this extent."""
        return (
            self.y >= 0
            and self.x >= 0
            and self.y_end <= extent.height
            and self.x_end <= extent.width
        )

    def clip(self, extent: Extent) -> "Region":
        """Return the part of the region inside a level of this extent.

        Raises
        ------
        RegionError
            If the region is entirely outside.
        """
        y, x = max(0, self.y), max(0, self.x)
        y_end, x_end = min(self.y_end, extent.height), min(self.x_end, extent.width)
        if y_end <= y or x_end <= x:
            raise RegionError(f"got {self}; expected an overlap with the level of {extent}")
        return Region(level=self.level, y=y, x=x, height=y_end - y, width=x_end - x)

    def __str__(self) -> str:
        return (
            f"region level={self.level} y={self.y} x={self.x} "
            f"height={self.height} width={self.width}"
        )


def require_inside(region: Region, extent: Extent, name: str) -> None:
    """Raise RegionError, naming the slide, unless the region is inside the extent."""
    if not region.inside(extent):
        raise RegionError(
            f"{name}: got {region}; expected it inside level {region.level} of {extent}; "
            "clip it first"
        )
