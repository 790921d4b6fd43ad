"""Owns intensity and stain normalisation of slides, independent of the region that is read.

Statistics of the slide are measured once, on a thumbnail; the rest works pixel by pixel, or in
cells that are fixed to the slide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.reading.clahe import equalise, region_of_cells
from wsi_seg.reading.readable import Readable, RegionReader, destination
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.stains import StainChange, to_reference
from wsi_seg.reading.thumbnail import area_averaged, thumbnail_extent

Pixels = NDArray[np.uint8]

# Label with the tissue (or lung) mask.
_TISSUE = "tissue"

# Longer side of the thumbnail that is measured; smaller images are measured at full resolution.
_MEASURED_PX = 2048

# Mean and standard deviation of ImageNet, RGB, 0 to 255.
_MEAN = 255 * np.array([0.485, 0.456, 0.406])
_STD = 255 * np.array([0.229, 0.224, 0.225])


class SlideSource(Protocol):
    """The part of a slide store that normalisation needs."""

    @property
    def name(self) -> str:
        """Name of the slide."""

    @property
    def image(self) -> Readable:
        """Pixels of the slide."""

    def label_names(self) -> tuple[str, ...]:
        """Return the names of its labels."""

    def label(self, name: str) -> RegionReader:
        """Open one of its labels."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """Image of a slide with the normalisation of a recipe applied; see `IntensityConfig`.

    Parameters
    ----------
    image
        The stored image.
    config
        Settings of the recipe.
    stain
        Stain normalisation; None to keep the colours.
    table
        Lookup table of each channel, ``(256, 3)`` uint8; None to keep the values.
    tissue
        Mask outside which pixels are overwritten; None overwrites nothing.
    """

    image: Readable
    config: IntensityConfig
    stain: StainChange | None
    table: Pixels | None
    tissue: RegionReader | None

    @property
    def pyramid(self) -> Pyramid:
        """Pyramid of the image."""
        return self.image.pyramid

    @property
    def measured(self) -> dict[str, object]:
        """Settings and the slide's measured statistics, as JSON values."""
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
        """Return the size of a chunk."""
        return self.image.chunk(level)

    def read(self, region: Region, *, cached: bool = True, out: Pixels | None = None) -> Pixels:
        """Read a region, ``(H, W, 3)`` uint8; a pixel's value does not depend on the region."""
        clahe, extent = self.config.clahe, self.pyramid.extents[region.level]
        wider = region if clahe is None else region_of_cells(region, extent, clahe.kernel_px)
        pixels = self._pointwise(self.image.read(wider, cached=cached))
        if clahe is not None:
            pixels = equalise(pixels, wider, region, extent, clahe)
        if self.tissue is not None and self.config.outside_tissue is not None:
            size = {"height": region.height, "width": region.width}
            tissue = read_label(self.tissue, extent, region.y, region.x, **size)
            outside = np.uint8(self.config.outside_tissue)
            pixels = np.where(tissue[..., None] > 0, pixels, outside)
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


def prepared_image(slide: SlideSource, config: IntensityConfig) -> Readable:
    """Return the image of a slide with a recipe's normalisation; the stored one if that is off.

    Raises
    ------
    StoreError
        If pixels outside the tissue are to be overwritten, and the slide has no tissue mask.
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
        thumbnail = _thumbnail(slide.image)
        if config.stain != "none":
            stain = to_reference(thumbnail, config.stain)
            thumbnail = stain.apply(thumbnail)
        table = _scaling(thumbnail, config)
    tissue = None if config.outside_tissue is None else slide.label(_TISSUE)
    return PreparedImage(slide.image, config, stain, table, tissue)


def _thumbnail(image: Readable) -> Pixels:
    """Return the thumbnail that is measured, ``(H, W, 3)``."""
    pyramid = image.pyramid
    read: Callable[[Region], Pixels] = image.read
    return area_averaged(pyramid, read, thumbnail_extent(pyramid.extent, _MEASURED_PX))


def _scaling(thumbnail: Pixels, config: IntensityConfig) -> Pixels | None:
    """Return the lookup table of each channel, ``(256, C)``; None for no scaling."""
    values = np.arange(256)[:, None]
    flat = thumbnail.reshape(-1, thumbnail.shape[-1])
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
