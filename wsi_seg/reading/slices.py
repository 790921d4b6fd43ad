"""Owns slices of a volume that are slides of their own: their names, and their neighbours in z."""

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.reading.intensity import Pictured, prepared_image
from wsi_seg.reading.readable import Readable, destination

# Name of the slide that a slice of a volume becomes, with its z.
SLICE_NAME = re.compile(r"(?P<volume>.+)_z(?P<z>\d{4,})")


def volume_of(slide: str) -> str | None:
    """Name of the volume that a slide is a slice of; None where it is of none.

    Examples
    --------
    >>> volume_of("ct_z0012")
    'ct'
    """
    match = SLICE_NAME.fullmatch(slide)
    return None if match is None else match["volume"]


class SliceStore(Pictured, Protocol):
    """What is needed of the store of a slice."""

    @property
    def slice_mm(self) -> float | None:
        """Millimetres to the next slice; None where unknown."""

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


def context_stack(
    store: SliceStore,
    count: int,
    step_mm: float | None = None,
    intensity: IntensityConfig = IntensityConfig(),  # noqa: B008 (frozen)
) -> SliceStack:
    """Open a slice with ``count`` slices on either side; past the ends the last one is repeated.

    Parameters
    ----------
    store
        The slice in the middle.
    count
        Slices on either side.
    step_mm
        From one to the next in mm, whatever the volume's own distance; the nearest slices are
        taken. None takes the neighbours as they are.
    intensity
        How the values of each slice are changed.

    Raises
    ------
    StoreError
        If the slide is not a slice of a volume, a slice has another size, or the distance of the
        volume's slices is not known and needed.
    """
    name = SLICE_NAME.fullmatch(store.name)
    if name is None:
        raise StoreError(
            f"slide {store.name!r} is not a slice of a volume (expected a name like ct_z0012), and "
            f"the model sees {count} slices on either side"
        )
    offsets, z = _offsets(store, count, step_mm), int(name["z"])
    middle = prepared_image(store, intensity)
    sides: list[list[Readable]] = []
    for direction in (-1, 1):
        side = [middle]
        for distance in range(1, offsets[-1] + 1):
            found = _slice(store, f"{name['volume']}_z{z + direction * distance:04d}")
            if found is None:
                break
            side.append(prepared_image(found, intensity))
        sides.append([side[min(offset, len(side) - 1)] for offset in offsets])
    return SliceStack((*reversed(sides[0]), middle, *sides[1]))


def _offsets(store: SliceStore, count: int, step_mm: float | None) -> list[int]:
    """Slices from the middle one to each on a side."""
    if step_mm is None:
        return list(range(1, count + 1))
    if store.slice_mm is None:
        raise StoreError(
            f"slide {store.name!r}: the distance of its slices is not known, and the model sees "
            f"slices {step_mm:g} mm apart; tile the volume again"
        )
    # Halves go outwards, so that no two of a side are one slice where they need not be.
    return [int(number * step_mm / store.slice_mm + 0.5) for number in range(1, count + 1)]


def _slice(store: SliceStore, name: str) -> SliceStore | None:
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
    return found
