"""Owns pixels as models see them: grey values and colours changed alike, whatever region is read.

What depends on the slide is measured once, from a picture of the whole; the rest is done pixel by
pixel, or in cells that are fixed to the slide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.reading.clahe import equalised, region_of_cells
from wsi_seg.reading.readable import Readable, RegionReader, destination
from wsi_seg.reading.stains import StainChange, to_reference
from wsi_seg.reading.thumbnail import area_averaged, thumbnail_extent

Pixels = NDArray[np.uint8]

# Name of the label that says where tissue is, or lung.
_TISSUE = "tissue"

# Longer side of the picture that is measured; smaller images are measured pixel by pixel.
_LONGEST_PX = 2048

# Mean and standard deviation of ImageNet's images, red, green and blue, 0 to 255.
_MEAN = 255 * np.array([0.485, 0.456, 0.406])
_STD = 255 * np.array([0.229, 0.224, 0.225])


class Pictured(Protocol):
    """Slide whose pixels are changed."""

    @property
    def name(self) -> str:
        """Name of the slide."""

    @property
    def image(self) -> Readable:
        """Its pixels."""

    def label_names(self) -> tuple[str, ...]:
        """Names of its labels."""

    def label(self, name: str) -> RegionReader:
        """One of its labels."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """Image of a slide after the changes that a recipe asks for; see `IntensityConfig`.

    Parameters
    ----------
    image
        The image as it is.
    config
        What is changed.
    stain
        Change of colours; None for none.
    table
        ``(256, 3)`` uint8: new value of each value of each channel; None changes none.
    tissue
        Mask whose outside is painted over; None paints nothing.
    """

    image: Readable
    config: IntensityConfig
    stain: StainChange | None
    table: Pixels | None
    tissue: RegionReader | None

    @property
    def pyramid(self) -> Pyramid:
        """Levels of the image."""
        return self.image.pyramid

    @property
    def measured(self) -> dict[str, object]:
        """What was measured of the slide, as plain JSON values."""
        found: dict[str, object] = self.config.model_dump(mode="json")
        if self.stain is not None:
            found["colours"] = self.stain.to_json()
        if self.table is not None:
            found["black_and_white"] = [
                [int(np.searchsorted(channel, 1)), int(np.searchsorted(channel, 255))]
                for channel in self.table.T
            ]
        return found

    def chunk(self, level: int) -> Extent:
        """Size of what is decoded at a time."""
        return self.image.chunk(level)

    def read(self, region: Region, *, cached: bool = True, out: Pixels | None = None) -> Pixels:
        """Read a region, ``(H, W, 3)`` uint8; the same pixels whatever the region."""
        clahe, extent = self.config.clahe, self.pyramid.extents[region.level]
        wider = region if clahe is None else region_of_cells(region, extent, clahe.kernel_px)
        pixels = self._pointwise(self.image.read(wider, cached=cached))
        if clahe is not None:
            pixels = equalised(pixels, wider, region, extent, clahe)
        if self.tissue is not None and self.config.outside_tissue is not None:
            inside = _mask_of(self.tissue, region, extent)
            pixels = np.where(inside[..., None], pixels, np.uint8(self.config.outside_tissue))
        filled = destination(pixels.shape, out)
        filled[...] = pixels
        return filled

    def _pointwise(self, pixels: Pixels) -> Pixels:
        if self.stain is not None:
            pixels = self.stain.apply(pixels)
        if self.table is not None:
            pixels = np.take_along_axis(
                self.table, pixels.reshape(-1, pixels.shape[-1]), axis=0
            ).reshape(pixels.shape)
        return pixels


def prepared_image(slide: Pictured, config: IntensityConfig) -> Readable:
    """Image of a slide as a recipe wants it; its own where nothing is changed.

    Raises
    ------
    StoreError
        If what is outside the tissue is to be painted over, and the slide has no tissue mask.
    """
    if not config.is_on:
        return slide.image
    if config.outside_tissue is not None and _TISSUE not in slide.label_names():
        raise StoreError(
            f"slide {slide.name!r} has no tissue mask, and intensity.outside_tissue is "
            f"{config.outside_tissue}; expected one; tile the slide again, or run "
            "`wsi-seg ct lungs`"
        )
    stain = table = None
    if config.stain != "none" or config.scale != "none":
        picture = _picture(slide.image)
        if config.stain != "none":
            stain = to_reference(picture, config.stain)
            picture = stain.apply(picture)
        table = _scaling(picture, config)
    tissue = None if config.outside_tissue is None else slide.label(_TISSUE)
    return PreparedImage(slide.image, config, stain, table, tissue)


def _picture(image: Readable) -> Pixels:
    """Picture of the whole slide, ``(H, W, 3)``."""
    pyramid = image.pyramid
    read: Callable[[Region], Pixels] = image.read
    return area_averaged(pyramid, read, thumbnail_extent(pyramid.extent, _LONGEST_PX))


def _scaling(picture: Pixels, config: IntensityConfig) -> Pixels | None:
    """Make the table of new values of each channel, ``(256, C)``."""
    values = np.arange(256)[:, None]
    flat = picture.reshape(-1, picture.shape[-1])
    match config.scale:
        case "none":
            return None
        case "slide":
            spread = np.maximum(flat.std(axis=0), 1.0)
            scaled = (values - flat.mean(axis=0)) / spread * _STD + _MEAN
        case _:
            ends = (0, 100) if config.scale == "minmax" else config.percentiles
            low, high = np.percentile(flat, ends)
            scaled = np.repeat((values - low) / max(high - low, 1.0) * 255, flat.shape[1], axis=1)
    table: Pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return table


def _mask_of(tissue: RegionReader, region: Region, extent: Extent) -> NDArray[np.bool_]:
    """Whether each pixel of a region of a level is tissue, ``(H, W)``."""
    size = tissue.pyramid.extent
    rows = ((region.y + np.arange(region.height)) * 2 + 1) * size.height // (2 * extent.height)
    columns = ((region.x + np.arange(region.width)) * 2 + 1) * size.width // (2 * extent.width)
    top, left = int(rows[0]), int(columns[0])
    under = Region(
        level=0, y=top, x=left, height=int(rows[-1]) - top + 1, width=int(columns[-1]) - left + 1
    )
    mask: NDArray[np.bool_] = tissue.read(under)[np.ix_(rows - top, columns - left)] > 0
    return mask
