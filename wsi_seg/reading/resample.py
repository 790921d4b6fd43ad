"""Owns reading a slide at any resolution: area averages of images, nearest pixels of labels.

Training and inference both read with this module, so that a model sees the same pixels in both.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import RegionError, ResolutionError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.pyramid import SAME_MPP
from wsi_seg.reading.readable import RegionReader

# A slide whose finest level is coarser than requested by more than this factor is refused.
COARSEST_SLIDE = 1.2

# Area weights are multiples of 1 / 4096, and sums of rows are rounded to 1 / 16 of a grey level:
# all products and sums are whole numbers below 2^24, hence exact in float32, and a pixel has the
# same value in every tile that contains it, whatever the order of summation.
_WEIGHT_STEPS = 4096
_ROW_STEPS = 16

# Factors for the sums along columns, and then along rows, before rounding.
ROW_SCALE = _ROW_STEPS / _WEIGHT_STEPS
COLUMN_SCALE = 1 / (_WEIGHT_STEPS * _ROW_STEPS)


@dataclass(frozen=True, slots=True)
class Scale:
    """Level and size at which a slide is read for a requested resolution.

    Parameters
    ----------
    level
        Level to read.
    extent
        Size of the slide at the requested resolution: that of the level, unless it is resampled.
    """

    level: int
    extent: Extent


def scale_for(pyramid: Pyramid, mpp: float | None, *, name: str) -> Scale:
    """Choose the coarsest level that is fine enough for an mpp; None means level 0 as stored.

    Raises
    ------
    ResolutionError
        If the slide's mpp is unknown, or too coarse.
    """
    if mpp is None:
        return Scale(0, pyramid.extent)
    if pyramid.mpp is None:
        raise ResolutionError(
            f"slide {name!r} has no mpp; expected one, to read it at {mpp:g} um per pixel; give it "
            "with `wsi-seg tile SLIDE --mpp X --overwrite`"
        )
    if pyramid.mpp > mpp * COARSEST_SLIDE:
        raise ResolutionError(
            f"slide {name!r} has {pyramid.mpp:.4g} um per pixel at its finest level; expected at "
            f"most {mpp * COARSEST_SLIDE:.4g} to read it at {mpp:g}; request an mpp of "
            f"{pyramid.mpp / COARSEST_SLIDE:.4g} or more, or exclude the slide"
        )
    requested = max(1.0, mpp / pyramid.mpp)
    level = pyramid.level_at_or_below(requested)
    if requested / pyramid.downsample(level) > SAME_MPP:
        return Scale(level, pyramid.extent.scaled(requested))
    return Scale(level, pyramid.extents[level])


def read_image(
    image: RegionReader, scale: Scale, y: int, x: int, *, height: int, width: int
) -> NDArray[np.uint8]:
    """Read a rectangle of a slide at a scale, area-averaged, ``(height, width, C)`` uint8.

    The rectangle is in pixels of ``scale.extent``, and must be inside it.
    """
    full = image.pyramid.extents[scale.level]
    if full == scale.extent:
        return image.read(Region(level=scale.level, y=y, x=x, height=height, width=width))
    down = area_taps(y, height, full=full.height, small=scale.extent.height)
    across = area_taps(x, width, full=full.width, small=scale.extent.width)
    y0, x0 = int(down.pixels[0, 0]), int(across.pixels[0, 0])
    region = Region(
        level=scale.level,
        y=y0,
        x=x0,
        height=int(down.pixels[-1, -1]) + 1 - y0,
        width=int(across.pixels[-1, -1]) + 1 - x0,
    )
    source = image.read(region).astype(np.float32)
    tall = sum(
        down.weights[:, tap, None, None] * source[down.pixels[:, tap] - y0]
        for tap in range(down.count)
    )
    tall = np.rint(tall * ROW_SCALE)
    wide = sum(
        across.weights[:, tap, None] * tall[:, across.pixels[:, tap] - x0]
        for tap in range(across.count)
    )
    return np.rint(wide * COLUMN_SCALE).astype(np.uint8)


def read_centred(
    image: RegionReader,
    *,
    name: str,
    mpp: float,
    centre_um: tuple[float, float],
    size_px: tuple[int, int],
    fill: int | None = None,
) -> NDArray[np.uint8]:
    """Read a rectangle around a point of a slide at any resolution, area-averaged.

    Parameters
    ----------
    image
        The image of the slide.
    name
        Name of the slide, for messages.
    mpp
        Micrometres per pixel of the result.
    centre_um
        Centre of the rectangle (y, x) in micrometres from the slide's upper left corner.
    size_px
        Height and width of the result in pixels.
    fill
        Value of pixels outside the slide, 0 to 255; None refuses rectangles that extend beyond it.

    Returns
    -------
    NDArray[np.uint8]
        ``(height, width, C)``, 0 to 255.

    Raises
    ------
    RegionError
        If the rectangle extends beyond the slide and ``fill`` is None.
    ResolutionError
        If the slide's mpp is unknown, or more than 20 % coarser than ``mpp``.
    """
    scale = scale_for(image.pyramid, mpp, name=name)
    full, here = image.pyramid.extent, scale.extent
    base = image.pyramid.mpp or mpp
    # Micrometres per pixel of the result, along y and x.
    steps = base * full.height / here.height, base * full.width / here.width
    height, width = size_px
    y, x = (round(c / s - n / 2) for c, s, n in zip(centre_um, steps, size_px, strict=True))
    top, left, bottom, right = (
        max(y, 0),
        max(x, 0),
        min(y + height, here.height),
        min(x + width, here.width),
    )
    if (top, left, bottom, right) == (y, x, y + height, x + width):
        return read_image(image, scale, y, x, height=height, width=width)
    if fill is None:
        raise RegionError(
            f"slide {name!r}: got {width} x {height} pixels around {centre_um} um, which extend "
            f"beyond its {here} at {mpp:g} um per pixel; expected a rectangle inside, or fill="
        )
    if bottom <= top or right <= left:
        channels = image.read(Region(level=scale.level, y=0, x=0, height=1, width=1)).shape[2:]
        return np.full((height, width, *channels), fill, np.uint8)
    inside = read_image(image, scale, top, left, height=bottom - top, width=right - left)
    found = np.full((height, width, *inside.shape[2:]), fill, np.uint8)
    found[top - y : bottom - y, left - x : right - x] = inside
    return found


def read_label(
    label: RegionReader, extent: Extent, y: int, x: int, *, height: int, width: int
) -> NDArray[np.uint8]:
    """Read a rectangle of a label map at any resolution, ``(height, width)`` uint8 class ids.

    Parameters
    ----------
    label
        Covers the whole slide.
    extent
        Size of the slide at the requested resolution; the rectangle is in its pixels, inside it.
    """
    ratio = label.pyramid.extent.height / extent.height
    level = label.pyramid.level_at_or_below(max(1.0, ratio))
    full = label.pyramid.extents[level]
    rows = under_centres(y, height, full=full.height, small=extent.height)
    columns = under_centres(x, width, full=full.width, small=extent.width)
    region = Region(
        level=level,
        y=int(rows[0]),
        x=int(columns[0]),
        height=int(rows[-1] - rows[0]) + 1,
        width=int(columns[-1] - columns[0]) + 1,
    )
    ids = label.read(region)
    if full == extent:
        return ids
    return ids[np.ix_(rows - rows[0], columns - columns[0])]


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Source pixels and weights of each output pixel along one axis.

    Parameters
    ----------
    pixels
        Indices of source pixels, ``(n, taps)`` int64, ascending in each row.
    weights
        Weights in units of 1/4096, ``(n, taps)`` float32 whole numbers; each row sums to 4096.
    """

    pixels: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of source pixels per output pixel."""
        return int(self.pixels.shape[1])


def area_taps(start: int, count: int, *, full: int, small: int) -> Taps:
    """Return the source pixels that are averaged into output pixels along one axis.

    Output pixel ``i`` covers the source interval ``[i, i + 1) * full / small``; the weight of a
    source pixel is the length of its overlap with that interval.

    Parameters
    ----------
    start, count
        Output pixels ``[start, start + count)``.
    full, small
        Lengths of the source axis and the output axis, each in its own pixels.
    """
    ratio = full / small
    edges = np.arange(start, start + count) * ratio
    first = np.minimum(edges.astype(np.int64), full - 1)
    borders = first[:, None] + np.arange(math.ceil(ratio) + 2)
    # Fraction of each output pixel before each source border; the differences are the weights.
    before = np.clip((borders - edges[:, None]) / ratio, 0, 1)
    before[borders >= full] = 1
    weights = np.diff(np.rint(before * _WEIGHT_STEPS), axis=1).astype(np.float32)
    used = max(1, int(np.flatnonzero(weights.any(axis=0))[-1]) + 1)
    pixels = np.minimum(borders[:, :used], full - 1)
    return Taps(pixels, weights[:, :used])


def under_centres(start: int, count: int, *, full: int, small: int) -> NDArray[np.int64]:
    """Return the source pixels at the centres of the output pixels ``[start, start + count)``."""
    px = np.arange(start, start + count, dtype=np.int64)
    return (2 * px + 1) * full // (2 * small)
