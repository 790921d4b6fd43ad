"""Owns reading plain images (PNG, JPEG, BMP ...) as single-level slides, with Pillow.

Samples are converted to RGB as follows: grey is repeated; palettes are looked up; 1-bit samples
become black and white; 16-bit samples are scaled from 0 to 65,535; transparent pixels (alpha 0)
become white, and other alpha values are ignored. The EXIF orientation is applied, so that pixels
are where viewers and annotation tools show them. JPEG and PNG are decoded by imagecodecs, which
needs half the memory of Pillow and keeps 16-bit colour.
"""

import warnings
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_seg.codestreams.streams import jpeg_is_complete
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.slides.colour import Colour
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.orientation import upright, upright_extent
from wsi_seg.slides.picture import SingleLevelSlide
from wsi_seg.slides.resolution import UNKNOWN, choose_resolution

_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I"}
# Pillow would run an external program for PostScript, and unmaintained code for old formats.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")
_ORIENTATION = 0x0112
_BAND = 1024
# Modes that imagecodecs decodes; Pillow handles palettes and 1-bit images.
_DIRECT = {"L", "LA", "RGB", "RGBA", "I;16"}
_CLEAR = {"LA", "PA", "RGBA", "RGBa", "La"}


def open_image(path: Path, *, mpp: float | None = None) -> SingleLevelSlide:
    """Open a plain image; such files have no mpp metadata.

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per pixel.

    Raises
    ------
    SlideError
        If the file is not an image that Pillow reads.
    UnsupportedSlideError
        If the image is too large to decode at once, is CMYK, or the file holds several images.
    """
    with _translate_errors(path), _opened(path) as image:
        kind = (image.format or "image").lower()
        width, height = image.size
        mode, frames = image.mode, getattr(image, "n_frames", 1)
        extent = upright_extent(Extent(height=height, width=width), _orientation(image))
        palette = mode != "P" or image.palette is not None
    if not palette:
        raise SlideError(f"{path}: got palette colours without a palette; the file is damaged")
    if mode in {"CMYK", "LAB", "F"}:
        raise UnsupportedSlideError(f"{path}: got {mode} colours; expected grey or RGB; convert it")
    if frames > 1 and kind != "mpo":  # cameras put a preview behind the picture
        raise UnsupportedSlideError(
            f"{path}: got {frames} images in one file; expected one; save them one by one"
        )
    return SingleLevelSlide(
        path,
        kind,
        extent=extent,
        resolution=choose_resolution(mpp, UNKNOWN, path),
        decode=partial(_decode, path, kind),
    )


def _translate_errors(path: Path) -> AbstractContextManager[None]:
    return translate_errors(path, "cannot be read as an image: ", "a whole PNG, JPEG, BMP or WebP")


def _orientation(image: Image.Image) -> int:
    # Without EXIF before the pixels of a PNG, Pillow would decode them all to look after them.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, lower size warning
        try:
            return Image.open(path, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise SlideError(
                f"{path}: is not an image that can be read; expected a slide (TIFF, SVS, NDPI, "
                "MRXS ..., DICOM, OME-Zarr), a volume (NIfTI, MHD), or a picture (PNG, JPEG)"
            ) from error
        except Image.DecompressionBombError as error:
            raise UnsupportedSlideError(f"{path}: {error}; save it as a tiled TIFF") from error


def _decode(path: Path, kind: str) -> NDArray[np.uint8]:
    with _translate_errors(path), _opened(path) as image:
        orientation = _orientation(image)
        if image.mode in _DIRECT and kind in {"png", "jpeg", "mpo"}:
            samples = _decode_directly(path, kind)
        elif image.mode in _SIXTEEN_BIT:
            samples = np.asarray(image).clip(0, 65535).astype(np.uint16)
        else:
            clear = image.mode in _CLEAR or "transparency" in image.info
            samples = np.array(image.convert("RGBA" if clear else "RGB"))
    return upright(_rgb(samples), orientation)


def _decode_directly(path: Path, kind: str) -> NDArray[np.generic]:
    data = path.read_bytes()
    if kind == "png":
        return np.asarray(imagecodecs.png_decode(data))
    if not jpeg_is_complete(data):
        raise ValueError("the stream is cut off")
    return np.asarray(imagecodecs.jpeg8_decode(data))


def _rgb(samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    samples = samples.reshape(*samples.shape[:2], -1)
    count, bits = samples.shape[2], 8 * samples.dtype.itemsize
    if samples.dtype == np.uint8 and count == 3:
        return samples.view(np.uint8)
    alpha = count - 1 if count in {2, 4} else None
    colour = Colour("grey" if count < 3 else "rgb", bits, alpha=alpha)
    pixels = np.empty((*samples.shape[:2], 3), np.uint8)
    for y in range(0, len(samples), _BAND):  # the conversion needs 32 bits per sample
        pixels[y : y + _BAND] = colour.to_rgb(samples[y : y + _BAND])
    return pixels
