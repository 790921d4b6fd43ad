"""Owns how a model looks at slides: at which resolution, fitted or not, with which neighbours.

Training and inference look through the same view, so a model meets at inference what it learned.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import Recipe
from wsi_seg.config.recipe import Resize
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.reading.resample import Readable, Scale, scale_for
from wsi_seg.slides.slide import SLICE_NAME
from wsi_seg.store import Multiscale, open_multiscale
from wsi_seg.store.chunks import destination
from wsi_seg.store.remote import below

_RGB = 3


class _Store(Protocol):
    """What a view needs of a slide's store."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> Multiscale: ...


@dataclass(frozen=True, slots=True)
class View:
    """How a model looks at slides.

    Parameters
    ----------
    mpp
        Micrometres per px; None for px of level 0 as they are.
    resize
        Resize each slide, whatever its size, to the square that the model sees: ``stretch`` fills
        it and changes the aspect, ``pad`` puts the whole slide inside and mirrors the rest,
        ``crop`` fills it with the shorter side, and several windows cover the longer one. None
        keeps the slide's resolution.
    side
        Side in px of that square.
    context_slices
        Slices of the volume on either side that are seen with a slice. With any, each slice gives
        one channel of grey, in the order of z; with none, a slide gives RGB.
    """

    mpp: float | None
    resize: Resize | None = None
    side: int = 0
    context_slices: int = 0

    @classmethod
    def of(cls, recipe: Recipe) -> "View":
        """View that a recipe trains with."""
        return cls(recipe.mpp, recipe.resize, recipe.patch_px, recipe.data.context_slices)

    @property
    def channels(self) -> int:
        """Channels of what is seen."""
        return channels_with(self.context_slices)

    def scale(self, pyramid: Pyramid, *, name: str) -> Scale:
        """Level that is read and the size it is resampled to; see `scale_for`."""
        if self.resize is None:
            return scale_for(pyramid, self.mpp, name=name)
        full, side = pyramid.extent, self.side
        if self.resize == "stretch":
            extent = Extent(height=side, width=side)
        else:
            longest = max if self.resize == "pad" else min
            ratio = longest(full.height, full.width) / side
            extent = Extent(
                height=max(1, round(full.height / ratio)), width=max(1, round(full.width / ratio))
            )
        finest = min(full.height / extent.height, full.width / extent.width)
        return Scale(pyramid.level_at_or_below(max(1.0, finest)), extent)

    def image(self, store: _Store) -> Readable:
        """Px of a slide as the model sees them.

        Raises
        ------
        StoreError
            If neighbours are asked for and the slide is no slice of a volume, or a neighbour has
            another size.
        """
        return store.image if self.context_slices == 0 else _stack(store, self.context_slices)


def channels_with(context_slices: int) -> int:
    """Channels that a model sees with so many slices on either side."""
    return 2 * context_slices + 1 if context_slices else _RGB


@dataclass(frozen=True, slots=True)
class SliceStack:
    """A slice of a volume and its neighbours, read as the channels of one image.

    Parameters
    ----------
    slices
        In the order of z, an odd number; the one in the middle gives name and pyramid.
    """

    slices: tuple[Multiscale, ...]

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


def _stack(store: _Store, context_slices: int) -> SliceStack:
    """Open a slice's neighbours; where one is missing, the one before it stands for the rest."""
    name = SLICE_NAME.fullmatch(store.name)
    if name is None:
        raise StoreError(
            f"slide {store.name!r} is no slice of a volume (expected a name like ct_z0012), and "
            f"the model sees {context_slices} slices on either side"
        )
    z = int(name["z"])
    sides: list[list[Multiscale]] = []
    for step in (-1, 1):
        side = [store.image]
        for distance in range(1, context_slices + 1):
            other = f"{name['volume']}_z{z + step * distance:04d}"
            path = below(store.image.path.parent, other)
            side.append(_slice(path, like=store.image) or side[-1])
            if side[-1] is side[-2]:
                side += side[-1:] * (context_slices - distance)
                break
        sides.append(side[1:])
    return SliceStack((*reversed(sides[0]), store.image, *sides[1]))


def _slice(path: Path, *, like: Multiscale) -> Multiscale | None:
    """Open a neighbour; None if there is none."""
    if not (path / "zarr.json").is_file():
        return None
    found = open_multiscale(path)
    if found.pyramid.extent != like.pyramid.extent:
        raise StoreError(
            f"slices of one volume differ: {found.name} has {found.pyramid.extent}, {like.name} "
            f"has {like.pyramid.extent}; tile the volume again"
        )
    return found
