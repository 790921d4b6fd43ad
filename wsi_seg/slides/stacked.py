"""Owns counting the images that a TIFF file holds, and reading their orientation."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.tiff_ifds import check_ifds

# Levels of a pyramid are smaller than level 0 by more than this factor.
_MIN_DOWNSAMPLE = 1.5


@dataclass(frozen=True, slots=True)
class Stack:
    """Images in a TIFF file.

    Parameters
    ----------
    count
        Number of images, without pyramid levels and transparency masks.
    orientation
        Orientation tag of the first image; 1 is upright.
    """

    count: int
    orientation: int


def read_stack(path: Path) -> Stack:
    """Count the images in a TIFF file.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    check_ifds(path)
    with (
        translate_errors(
            path, "cannot be read as a TIFF: ", "a readable TIFF", also=(tifffile.TiffFileError,)
        ),
        tifffile.TiffFile(path) as tiff,
    ):
        pages = [page for page in tiff.pages if not (_kind(page) & 0b101)]  # reduced, or a mask
        first = tiff.pages.first
        own = [page for page in pages if page is first or not _is_level(page, first)]
        stated = (tiff.imagej_metadata or {}).get("images", 1)
        for series in tiff.shaped_metadata or ():
            shape = series.get("shape") or ()
            stated = max(stated, math.prod(map(int, shape)) // max(1, first.size))
        count = max(len(own), int(stated), int(first.imagedepth))
        tag = first.tags.get("Orientation")
        return Stack(count, 1 if tag is None else int(tag.value))


def _kind(page: Any) -> int:  # noqa: ANN401 (tifffile has no types)
    return int(page.aspage().subfiletype)


def _is_level(page: Any, first: Any) -> bool:  # noqa: ANN401 (tifffile has no types)
    """Return whether a page is a reduced version of the first; not all writers mark these."""
    small = page.aspage()
    tall = first.imagelength / max(1, small.imagelength)
    wide = first.imagewidth / max(1, small.imagewidth)
    rounding = 1.5 / max(1, min(small.imagelength, small.imagewidth))
    return bool(min(tall, wide) > _MIN_DOWNSAMPLE and abs(tall / wide - 1) <= rounding)
