"""Owns slices of a volume that are slides of their own: their names, and their neighbours in z."""

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.reading.readable import Readable, destination

# Name of the slide that a slice of a volume becomes, with its z.
SLICE_NAME = re.compile(r"(?P<volume>.+)_z(?P<z>\d{4,})")


class SliceStore(Protocol):
    """What is needed of the store of a slice."""

    @property
    def name(self) -> str:
        """Name of the slide."""

    @property
    def image(self) -> Readable:
        """Pixels of the slice."""

    def sibling(self, name: str) -> "SliceStore | None":
        """Another slide of the same collection."""


@dataclass(frozen=True, slots=True)
class SliceStack:
    """A slice of a volume and its neighbours, read as the channels of one image.

    Parameters
    ----------
    slices
        In the order of z, an odd number; the one in the middle gives the pyramid.
    """

    slices: tuple[Readable, ...]

    @property
    def pyramid(self) -> Pyramid:
        """Levels of the slice in the middle."""
        return self.slices[len(self.slices) // 2].pyramid

    def chunk(self, level: int) -> Extent:
        """Size of what is decoded at a time, of one level."""
        return self.slices[len(self.slices) // 2].chunk(level)

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region of all slices, ``(H, W, slices)`` uint8 grey; see `Multiscale.read`."""
        filled = destination((region.height, region.width, len(self.slices)), out)
        for channel, one in enumerate(self.slices):
            # Grey is stored as RGB with three equal channels.
            filled[..., channel] = one.read(region, cached=cached)[..., 0]
        return filled


def context_stack(store: SliceStore, count: int) -> SliceStack:
    """Open a slice with ``count`` slices on either side; past the ends the last one is repeated.

    Raises
    ------
    StoreError
        If the slide is not a slice of a volume, or a slice has another size.
    """
    name = SLICE_NAME.fullmatch(store.name)
    if name is None:
        raise StoreError(
            f"slide {store.name!r} is not a slice of a volume (expected a name like ct_z0012), and "
            f"the model sees {count} slices on either side"
        )
    z = int(name["z"])
    sides: list[list[Readable]] = []
    for step in (-1, 1):
        side = [store.image]
        for distance in range(1, count + 1):
            side.append(_slice(store, f"{name['volume']}_z{z + step * distance:04d}") or side[-1])
            if side[-1] is side[-2]:
                side += side[-1:] * (count - distance)
                break
        sides.append(side[1:])
    return SliceStack((*reversed(sides[0]), store.image, *sides[1]))


def _slice(store: SliceStore, name: str) -> Readable | None:
    """Open another slice of the volume; None if there is none of this name."""
    found = store.sibling(name)
    if found is None:
        return None
    here, there = store.image.pyramid.extent, found.image.pyramid.extent
    if there != here:
        raise StoreError(
            f"slices of one volume differ: {name} has {there}, {store.name} has {here}; tile the "
            "volume again"
        )
    return found.image
