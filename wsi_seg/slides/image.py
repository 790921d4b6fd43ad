"""Owns plain images (PNG, JPEG, BMP ...) as slides of one level; Pillow lives here.

How samples become RGB: grey is repeated; palettes are looked up; one bit is black and white;
16-bit grey is scaled from 0 to 65,535, 16-bit colour keeps its upper byte; alpha is left out.
An EXIF orientation is applied, so px lie as viewers and annotation tools show them.
"""

import warnings
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.slides.colour import Colour
from wsi_seg.slides.failures import explained
from wsi_seg.slides.picture import PictureSlide
from wsi_seg.slides.resolution import UNKNOWN, chosen

_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I"}
_ORIENTATION = 0x0112
_ON_ITS_SIDE = {5, 6, 7, 8}
_BAND = 1024


def open_image(path: Path, *, mpp: float | None = None) -> PictureSlide:
    """Open a plain image; such files do not state their mpp.

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per px.

    Raises
    ------
    SlideError
        If the file is not an image that Pillow reads.
    UnsupportedSlideError
        If it is too large to be decoded whole, CMYK, or several images.
    """
    with _explained(path), _opened(path) as image:
        kind = (image.format or "image").lower()
        width, height = image.size
        mode, frames = image.mode, getattr(image, "n_frames", 1)
        if image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
            height, width = width, height
    if mode in {"CMYK", "LAB", "F"}:
        raise UnsupportedSlideError(f"{path}: got {mode} colours; expected grey or RGB; convert it")
    if frames > 1 and kind != "mpo":  # cameras put a preview behind the picture
        raise UnsupportedSlideError(
            f"{path}: got {frames} images in one file; expected one; save them one by one"
        )
    return PictureSlide(
        path,
        kind,
        extent=Extent(height, width),
        resolution=chosen(mpp, UNKNOWN),
        decode=partial(_decode, path),
    )


def _explained(path: Path) -> AbstractContextManager[None]:
    return explained(path, "cannot be read as an image: ", "a whole PNG, JPEG, BMP or WebP")


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


def _decode(path: Path) -> NDArray[np.uint8]:
    with _explained(path), _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in _SIXTEEN_BIT:
            return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))
        samples = np.asarray(upright)
        pixels = np.empty((*samples.shape, 3), np.uint8)
        for y in range(0, len(samples), _BAND):  # converting widens to 32 bit
            band = samples[y : y + _BAND, :, None].clip(0, 65535).astype(np.uint16)
            pixels[y : y + _BAND] = Colour("grey", 16).to_rgb(band)
        return pixels
