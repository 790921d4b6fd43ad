"""Owns single-level slides that are decoded at once: plain images, DICOM images, slices."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import UnsupportedSlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.limits import advice, limits
from wsi_seg.slides.resolution import Resolution
from wsi_seg.slides.slide import Slide, slide_name


class SingleLevelSlide(Slide):
    """A slide that is decoded once, on its first read; see `wsi_seg.slides.Slide`.

    Parameters
    ----------
    path
        The file, or the member of a file.
    kind
        Short word for the kind of file.
    extent
        Size of the image.
    resolution
        Micrometres per pixel.
    decode
        Returns the pixels, ``(H, W, 3)`` uint8 RGB; must be picklable, as slides are.
    slice_mm
        See `wsi_seg.slides.Slide`.

    Raises
    ------
    UnsupportedSlideError
        If the image is too large to be decoded at once.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        *,
        extent: Extent,
        resolution: Resolution,
        decode: Callable[[], NDArray[np.uint8]],
        slice_mm: float | None = None,
    ) -> None:
        # 100 Mpx of RGB take 0.3 GB, which keeps `wsi-seg tile` below 0.6 GB (measured: 0.54).
        if extent.area > limits().tile_pixels:
            raise UnsupportedSlideError(
                f"{path}: got a plain image of {extent}; {advice('tile_pixels')}, or save it as "
                "a tiled TIFF"
            )
        self.path = path
        self.name = slide_name(path)
        self.format = kind
        self.slice_mm = slice_mm
        self.mpp_source = resolution.source
        self.pyramid = Pyramid((extent,), resolution.mpp)
        self._resolution, self._decode = resolution, decode
        self._pixels: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # raises for a level that does not exist
        require_inside(region, self.pyramid.extent, self.name)
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
            pixels = self._pixels
        return pixels[region.slices].copy()

    def close(self) -> None:
        """Release the decoded pixels; the next read decodes them again."""
        self._pixels = None

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (
            self.path, self.format, self.pyramid.extent, self._resolution, self._decode,
            self.slice_mm,
        )  # fmt: skip


def _rebuild(
    path: Path,
    kind: str,
    extent: Extent,
    resolution: Resolution,
    decode: Callable[[], NDArray[np.uint8]],
    slice_mm: float | None,
) -> SingleLevelSlide:
    return SingleLevelSlide(
        path, kind, extent=extent, resolution=resolution, decode=decode, slice_mm=slice_mm
    )
