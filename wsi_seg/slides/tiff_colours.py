"""Owns the colour model of a TIFF page: photometric interpretation, alpha, nodata value."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_seg.counts import counted
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.slides.channels import require_colours
from wsi_seg.slides.colour import Colour, Model

logger = logging.getLogger(__name__)

IMAGE_STREAMS = {7, 33005, 34712, 50001, 50002, 52546}
"""Compressions that are image formats: JPEG, JPEG 2000, WebP, JPEG XL."""

_APERIO_YCBCR = 33003
# The decoder of old-style JPEG (6) converts to RGB, too.
_CONVERTING = IMAGE_STREAMS | {6}
_MODELS: dict[int, Model] = {
    0: "white-is-zero",
    1: "grey",
    2: "rgb",
    3: "palette",
    6: "rgb",  # the JPEG and JPEG 2000 decoders convert YCbCr
}
_ALPHA = {1, 2}
_GDAL_NODATA = 42113


def read_colour(page: Any, path: Path, *, planes: int) -> Colour:  # noqa: ANN401 (no types)
    """Read the colour model of a page's samples.

    Parameters
    ----------
    page
        tifffile's page.
    path
        The file.
    planes
        Number of planes that form an image: 1, or 3 for red, green and blue.

    Raises
    ------
    SlideError
        If its tags contradict each other.
    UnsupportedSlideError
        If its pixels cannot be converted to RGB.
    """
    model = _model(page, path)
    dtype, bits = page.dtype, page.bitspersample
    if dtype is None or dtype.kind not in "bu" or not isinstance(bits, int) or bits > 16:
        raise UnsupportedSlideError(
            f"{path}: got {bits}-bit samples of {dtype}; expected unsigned integers of 1 to 16 "
            "bits; convert it"
        )
    if planes > 1:
        return Colour("rgb", bits)
    palette = None
    if model == "palette":
        palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    model, alpha = _extra_samples(page, model, bits, path)
    return Colour(model, bits, palette, alpha)


def _model(page: Any, path: Path) -> Model:  # noqa: ANN401 (tifffile has no types)
    photometric, compression = int(page.photometric), int(page.compression)
    if photometric not in _MODELS:
        raise UnsupportedSlideError(
            f"{path}: got {word(page.photometric)} colours; expected grey, palette, RGB or YCbCr; "
            "convert it to RGB"
        )
    if compression not in tifffile.TIFF.DECOMPRESSORS:
        raise UnsupportedSlideError(
            f"{path}: got the unknown compression {compression}; convert it"
        )
    if compression == _APERIO_YCBCR or (photometric == 6 and compression not in _CONVERTING):
        return "ycbcr"
    return _MODELS[photometric]


def _extra_samples(
    page: Any,  # noqa: ANN401 (tifffile has no types)
    model: Model,
    bits: int,
    path: Path,
) -> tuple[Model, int | None]:
    """Interpret extra samples: return the colour model, and the index of the alpha sample."""
    count, needed = int(page.samplesperpixel), 3 if model in {"rgb", "ycbcr"} else 1
    if count < needed:
        raise SlideError(f"{path}: got {counted(count, 'sample')} per pixel; expected {needed}")
    if count == needed:
        return model, None
    extra = [int(kind) for kind in page.extrasamples]
    if count == needed + 1 and extra and extra[0] in _ALPHA:
        return model, needed
    if model == "grey" and not _ALPHA & set(extra):
        require_colours(path, count, (), bits=bits)
        return "rgb", None
    if model == "rgb" and count == needed + 1:
        logger.warning("%s: ignored a fourth sample that is not marked as alpha", path)
        return model, None
    raise UnsupportedSlideError(
        f"{path}: got {count} samples per pixel of {word(page.photometric)} colours; expected "
        f"{needed}, optionally with alpha; save it as RGB"
    )


def blank_samples(
    page: Any,  # noqa: ANN401 (tifffile has no types)
    main: Any,  # noqa: ANN401
    colour: Colour,
    count: int,
) -> NDArray[np.generic]:
    """Return the samples of pixels that are not stored: GDAL's nodata value, or white.

    Parameters
    ----------
    page, main
        Page of the level and of level 0; the latter's value applies to levels that state none.
    colour
        Colour model of the samples.
    count
        Samples per pixel of all planes.

    Returns
    -------
    NDArray
        ``(count,)``, in the dtype of `Colour.blank`.
    """
    blank = colour.blank(count)
    text = page.tags.valueof(_GDAL_NODATA) or main.tags.valueof(_GDAL_NODATA)
    try:
        stated = float(str(text).strip(" \0"))
    except ValueError:
        return blank
    if not math.isfinite(stated) or not 0 <= stated < 1 << colour.bits:
        return blank
    filled = np.full_like(blank, round(stated))
    if colour.alpha is not None:
        filled[colour.alpha] = blank[colour.alpha]
    return filled


def word(value: int) -> str:
    """Return the name of a TIFF enumeration member, or the number if it is unknown."""
    return str(getattr(value, "name", value))
