"""Owns tests of the slide decoders on a tiny image."""

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_seg.doctor.finding import Finding

type Pixels = NDArray[np.uint8]

# Title, name in imagecodecs, and largest allowed difference of a pixel, of 255.
_CODECS = (
    ("JPEG", "jpeg8", 8),
    ("JPEG 2000", "jpeg2k", 0),
    ("JPEG XL", "jpegxl", 8),
    ("JPEG-LS", "jpegls", 0),
    ("WebP", "webp", 8),
    ("PNG", "png", 0),
    ("deflate", "zlib", 0),
    ("LZW", "lzw", 0),
    ("Zstandard", "zstd", 0),
)


def examine_decoders() -> Iterator[Finding]:
    """Encode and decode a 32 x 32 image with each codec, and read one with OpenSlide.

    Yields
    ------
    Finding
        One for each codec that does not work, and one for all others.
    """
    picture = _picture()
    works = []
    for title, codec, most in _CODECS:
        wrong = _wrong(codec, picture, most)
        if wrong:
            yield Finding(title, wrong, "bad", "run: pip install --force-reinstall imagecodecs")
        else:
            works.append(title)
    if works:
        yield Finding("decoders", f"{', '.join(works)} (imagecodecs {imagecodecs.__version__})")
    if find_spec("openslide") is not None:
        yield _openslide(picture)


def _picture() -> Pixels:
    """Smooth image, ``(32, 32, 3)`` uint8, which lossy codecs change little."""
    ramp = np.linspace(20, 230, 32)
    planes = (ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], (ramp[:, None] + ramp) / 2)
    return np.stack(planes, axis=2).astype(np.uint8)


def _wrong(codec: str, picture: Pixels, most: int) -> str:
    """Return how a codec fails; empty if it reproduces the image."""
    try:
        encode: Callable[[Pixels], bytes] = getattr(imagecodecs, f"{codec}_encode")
        decode: Callable[[bytes], object] = getattr(imagecodecs, f"{codec}_decode")
        found = decode(encode(picture))
    except (RuntimeError, ImportError, ValueError, AttributeError) as error:
        return f"does not work: {error}"
    # Codecs of bytes return bytes.
    flat = np.frombuffer(found, np.uint8) if isinstance(found, bytes) else np.asarray(found)
    if flat.size != picture.size:
        return f"returns {flat.size} values, expected {picture.size}"
    error_of = np.abs(flat.reshape(picture.shape).astype(int) - picture).max()
    return "" if error_of <= most else f"changes pixels by up to {error_of}, expected {most}"


def _openslide(picture: Pixels) -> Finding:
    """Read a tiled TIFF with OpenSlide."""
    try:
        import openslide
    except (ImportError, OSError) as error:  # its library is missing, or for another platform
        advice = "run: pip install 'wsi-seg[openslide]'"
        return Finding("OpenSlide", f"cannot be loaded: {error}", "note", advice)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.tif"
        tifffile.imwrite(path, picture, tile=(16, 16), compression="zlib")
        try:
            with openslide.OpenSlide(path) as slide:
                found = np.asarray(slide.read_region((0, 0), 0, (32, 32)))[..., :3]
        except openslide.OpenSlideError as error:
            return Finding("OpenSlide", f"cannot read a tiny TIFF: {error}", "bad")
    if not np.array_equal(found, picture):
        return Finding("OpenSlide", "reads wrong pixels from a tiny TIFF", "bad")
    return Finding("OpenSlide", str(openslide.__library_version__))
