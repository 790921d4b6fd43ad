"""Owns plain images (PNG, JPEG, BMP ...) as slides of one level; Pillow lives here."""

import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.slides.colour import Colour
from wsi_seg.slides.slide import Recode, slide_name

# Such a file is decoded whole; 400 Mpx of RGB are 1.2 GB.
_MAX_PIXELS = 400_000_000

_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I"}
_MALFORMED = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError)


class ImageSlide:
    """A plain image; see `wsi_seg.slides.Slide`. It is decoded once, on the first read.

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per px; such files do not state it.

    Raises
    ------
    SlideError
        If the file is not an image that Pillow reads.
    UnsupportedSlideError
        If it is too large to be decoded whole, or CMYK.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self.mpp_source = "none" if mpp is None else "option"
        self._pixels: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()
        with _opened(path) as image:
            self.format = (image.format or "image").lower()
            width, height = image.size
            mode = image.mode
        if width * height > _MAX_PIXELS:
            raise UnsupportedSlideError(
                f"{path}: got a plain image of {width} x {height} px; expected at most "
                f"{_MAX_PIXELS / 1e6:.0f} Mpx; save it as a tiled TIFF"
            )
        if mode in {"CMYK", "LAB", "F"}:
            raise UnsupportedSlideError(f"{path}: got {mode} colours; expected grey or RGB")
        self.pyramid = Pyramid((Extent(height, width),), mpp)

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # names the levels there are, if it is not one
        require_inside(region, self.pyramid.extents[region.level], self.name)
        with self._lock:
            if self._pixels is None:
                self._pixels = _decode(self.path)
            pixels = self._pixels
        return pixels[region.slices].copy()

    def streams(self, level: int) -> Recode:
        """Offer no streams: such a file is one stream."""
        return Recode(f"{self.format} without tiles")

    def piece(self, level: int) -> Extent:
        """Full extent: such a file is decoded whole."""
        return self.pyramid.extents[level]

    def close(self) -> None:
        """Release the decoded px."""
        self._pixels = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self.pyramid.mpp)


def _reopen(path: Path, mpp: float | None) -> ImageSlide:
    return ImageSlide(path, mpp=mpp)


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, lower size warning
        try:
            return Image.open(path)
        except UnidentifiedImageError as error:
            raise SlideError(
                f"{path}: is not an image that can be read; expected TIFF, SVS, PNG or JPEG"
            ) from error
        except Image.DecompressionBombError as error:
            raise UnsupportedSlideError(f"{path}: {error}; save it as a tiled TIFF") from error
        except _MALFORMED as error:
            raise _unreadable(path, error) from error


def _decode(path: Path) -> NDArray[np.uint8]:
    with _opened(path) as image:
        try:
            if image.mode in _SIXTEEN_BIT:
                samples = np.asarray(image).clip(0, 65535).astype(np.uint16)[:, :, None]
                return Colour("grey", 16).to_rgb(samples)
            return np.array(image.convert("RGB"))
        except _MALFORMED as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> SlideError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return SlideError(f"{path}: cannot be read as an image: {reason}; check the file")
