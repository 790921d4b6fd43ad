"""Owns pyramids: extents, downsamples and mpp of levels, and choosing the level for an mpp."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_seg.errors import RegionError, ResolutionError
from wsi_seg.geometry.region import Extent

# A level up to 2 % coarser than requested is used as it is: scanners state mpp to about 1 %.
SAME_MPP = 1.02


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Extents of all levels of one image, finest first.

    Parameters
    ----------
    extents
        Size of each level; level 0 is the largest.
    mpp
        Micrometres per pixel of level 0, the mean of both axes; None if unknown.

    Examples
    --------
    >>> pyramid = Pyramid((Extent(height=4000, width=4000), Extent(height=1000, width=1000)), 0.25)
    >>> pyramid.downsample(1), pyramid.level_mpp(1)
    (4.0, 1.0)
    """

    extents: tuple[Extent, ...]
    mpp: float | None = None

    def __post_init__(self) -> None:
        if not self.extents:
            raise RegionError("got a pyramid without levels; expected at least one")
        for finer, coarser in zip(self.extents, self.extents[1:], strict=False):
            if coarser.height > finer.height or coarser.width > finer.width:
                raise RegionError(
                    f"got level extents {[str(e) for e in self.extents]}; expected each level "
                    "to be no larger than the one before it"
                )
        if self.mpp is not None and not (math.isfinite(self.mpp) and self.mpp > 0):
            raise ResolutionError(f"got mpp={self.mpp!r}; expected a positive number or None")

    @property
    def extent(self) -> Extent:
        """Size of level 0."""
        return self.extents[0]

    def downsample(self, level: int) -> float:
        """Return the level-0 pixels per pixel of a level, at least 1.

        Writers round the size of a level up or down, so the result is a whole number n if both
        sides equal floor or ceil of the level-0 size over n; otherwise the mean of both ratios.
        """
        base, here = self.extents[0], self._extent(level)
        ratio = (base.height / here.height + base.width / here.width) / 2
        n = round(ratio)
        sides = ((base.height, here.height), (base.width, here.width))
        if n >= 1 and all(small in (full // n, -(-full // n)) for full, small in sides):
            return float(n)
        return ratio

    def level_mpp(self, level: int) -> float | None:
        """Return the micrometres per pixel of a level; None if unknown."""
        return None if self.mpp is None else self.mpp * self.downsample(level)

    def level_at_or_below(self, downsample: float) -> int:
        """Return the coarsest level that is at least as fine as a downsample.

        A level up to 2 % coarser counts as equal; level 0 is returned if no level is fine enough.
        """
        fitting = [
            level
            for level in range(len(self.extents))
            if self.downsample(level) <= downsample * SAME_MPP
        ]
        return fitting[-1] if fitting else 0

    def _extent(self, level: int) -> Extent:
        if not 0 <= level < len(self.extents):
            raise RegionError(f"got level {level}; expected 0 to {len(self.extents) - 1}")
        return self.extents[level]


def extend_pyramid(extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """Append halved levels to a pyramid until the longer side is at most 1,024 px."""
    full = list(extents)
    while max(full[-1].height, full[-1].width) > 1024:
        full.append(full[-1].halved)
    return tuple(full)


def dyadic_extents(extent: Extent, count: int) -> tuple[Extent, ...]:
    """Return the extents of ``count`` levels, each half the size of the one before.

    OME-Zarr 0.5 requires a label to have as many levels as its image; this is for labels whose
    level 0 is coarser than that of the image.
    """
    extents = [extent]
    while len(extents) < count:
        extents.append(extents[-1].halved)
    return tuple(extents)
