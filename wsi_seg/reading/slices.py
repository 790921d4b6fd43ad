"""Owns 2.5-D reading: names of volume slices, and stacks of neighbouring slices."""

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.counts import counted
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.reading.intensity import SlideSource, prepared_image
from wsi_seg.reading.readable import Readable, destination

# Name of the slide of one slice of a volume.
SLICE_NAME = re.compile(r"(?P<volume>.+)_z(?P<z>\d{4,})")


def volume_of(slide: str) -> str | None:
    """Return the name of the volume that a slide is a slice of; None for other slides.

    Examples
    --------
    >>> volume_of("ct_z0012")
    'ct'
    """
    match = SLICE_NAME.fullmatch(slide)
    return None if match is None else match["volume"]


def case_of(slide: str) -> str:
    """Return the volume of a slice, or the slide itself: what is independent of other slides."""
    return volume_of(slide) or slide


class SliceStore(SlideSource, Protocol):
    """The part of a slice's store that context slices need."""

    @property
    def slice_mm(self) -> float | None:
        """Distance of the volume's slices in mm; None if unknown."""

    def sibling(self, name: str) -> "SliceStore | None":
        """Open another slide of the same collection; None if there is none of this name."""


@dataclass(frozen=True, slots=True)
class SliceStack:
    """A slice of a volume and its neighbours, read as channels of one image.

    Parameters
    ----------
    slices
        An odd number of slices in z order; the middle one defines the pyramid.
    """

    slices: tuple[Readable, ...]

    @property
    def pyramid(self) -> Pyramid:
        """Pyramid of the middle slice."""
        return self.slices[len(self.slices) // 2].pyramid

    def chunk(self, level: int) -> Extent:
        """Return the size of a chunk."""
        return self.slices[len(self.slices) // 2].chunk(level)

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region of all slices, ``(H, W, slices)`` uint8 grey; see `Multiscale.read`."""
        filled = destination((region.height, region.width, len(self.slices)), out)
        for channel, one in enumerate(self.slices):
            # Grey is stored as RGB with equal channels.
            filled[..., channel] = one.read(region, cached=cached)[..., 0]
        return filled


def context_stack(
    store: SliceStore,
    count: int,
    step_mm: float | None = None,
    intensity: IntensityConfig = IntensityConfig(),  # noqa: B008 (frozen)
) -> SliceStack:
    """Open a slice with ``count`` slices on each side; at the ends, the last slice is repeated.

    Parameters
    ----------
    store
        The middle slice.
    count
        Number of slices on each side.
    step_mm
        Distance from one slice to the next in mm; the nearest slices of the volume are used.
        None uses consecutive slices.
    intensity
        Intensity normalisation of each slice.

    Raises
    ------
    StoreError
        If the slide is not a slice of a volume, slices differ in size, or ``step_mm`` is given and
        the distance of the volume's slices is unknown.
    """
    name = SLICE_NAME.fullmatch(store.name)
    if name is None:
        raise StoreError(
            f"slide {store.name!r} is not a slice of a volume; expected a name like ct_z0012, "
            f"because the model uses {counted(count, 'slice')} on each side"
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
    """Return the distance of each context slice on a side from the middle one, in slices."""
    if step_mm is None:
        return list(range(1, count + 1))
    if store.slice_mm is None:
        raise StoreError(
            f"slide {store.name!r}: the distance of its slices is unknown, and the model uses "
            f"slices {step_mm:g} mm apart; tile the volume again"
        )
    # Halves are rounded outwards, so that no slice is used twice without need.
    return [int(number * step_mm / store.slice_mm + 0.5) for number in range(1, count + 1)]


def _slice(store: SliceStore, name: str) -> SliceStore | None:
    """Open another slice of the volume; None if there is none of this name."""
    found = store.sibling(name)
    if found is None:
        return None
    here, there = store.image.pyramid.extent, found.image.pyramid.extent
    if there != here:
        raise StoreError(
            f"got slices of one volume of different size: {name} has {there}, {store.name} has "
            f"{here}; tile the volume again"
        )
    return found
