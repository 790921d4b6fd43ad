"""Owns slides that OpenSlide reads and tifffile cannot read by region (mrxs, bif, vms)."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.slides.resolution import Resolution, choose_resolution, parse_um, plausible_resolution
from wsi_seg.slides.slide import NotCopyable, Slide, slide_name

# OpenSlide does not expose the tile size of a level; its cache uses tiles of about this size.
_BLOCK = Extent(height=512, width=512)


def recognises(path: Path) -> bool:
    """Return whether OpenSlide detects a scanner format; any tiled TIFF is ``generic-tiff``."""
    return openslide.OpenSlide.detect_format(path) not in {None, "generic-tiff"}


class OpenSlideSlide(Slide):
    """A slide read through OpenSlide; see `wsi_seg.slides.Slide`.

    Pixels that were not scanned get the slide's background colour. Associated images (label,
    macro, thumbnail) are never read.

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per pixel of level 0; overrides the file's metadata.

    Raises
    ------
    SlideError
        If OpenSlide cannot open the file.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self._override = mpp
        self._lock = threading.Lock()
        self._handle: Any = None
        handle = self._open()
        properties = handle.properties
        self.format = str(properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide"))
        extents = tuple(
            Extent(height=height, width=width) for width, height in handle.level_dimensions
        )
        found = choose_resolution(mpp, _resolution(properties), path)
        self.mpp_source = found.source
        self.pyramid = Pyramid(extents, found.mpp)
        colour = str(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF"))
        self._background = np.frombuffer(bytes.fromhex(colour), dtype=np.uint8)

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # raises for a level that does not exist
        require_inside(region, self.pyramid.extents[region.level], self.name)
        handle = self._open()
        downsample = handle.level_downsamples[region.level]
        location = (round(region.x * downsample), round(region.y * downsample))
        try:
            image = handle.read_region(location, region.level, (region.width, region.height))
        except openslide.OpenSlideError as error:
            self._drop(handle)  # after an error, OpenSlide refuses further reads from it
            raise SlideError(f"{self.path}: {region} cannot be read: {error}") from error
        rgba = np.asarray(image)
        pixels: NDArray[np.uint8] = np.where(rgba[..., 3:] > 0, rgba[..., :3], self._background)
        return pixels

    def streams(self, level: int) -> NotCopyable:
        """Return no streams: OpenSlide only returns decoded pixels."""
        return NotCopyable(f"{self.format}, read through OpenSlide")

    def native_block(self, level: int) -> Extent:
        """Return the size of the blocks to read one at a time."""
        return _BLOCK

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._drop(self._handle)

    def _drop(self, handle: Any) -> None:  # noqa: ANN401 (openslide has no types)
        """Forget a handle, which closes its file once no thread reads from it any more."""
        with self._lock:
            if self._handle is handle:
                self._handle = None

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._override)

    def _open(self) -> Any:  # noqa: ANN401 (openslide has no types)
        with self._lock:
            if self._handle is None:
                try:
                    self._handle = openslide.OpenSlide(self.path)
                except (openslide.OpenSlideError, OSError) as error:
                    raise SlideError(f"{self.path}: OpenSlide cannot open it: {error}") from error
            return self._handle


def _reopen(path: Path, mpp: float | None) -> OpenSlideSlide:
    return OpenSlideSlide(path, mpp=mpp)


def _resolution(properties: Any) -> Resolution:  # noqa: ANN401 (openslide has no types)
    x, y = (
        parse_um(properties.get(name))
        for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    )
    return plausible_resolution(x, y, "openslide")
