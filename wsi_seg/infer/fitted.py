"""Owns bringing the result of a fitted slide back to the slide's own size."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent


def restore(
    fitted: NDArray[np.uint8], native: Extent, rows: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Enlarge or reduce probabilities, linearly between the centres of px.

    Parameters
    ----------
    fitted
        ``(H, W, C)`` uint8, the whole slide.
    native
        Size to bring it to.
    rows
        Rows that are given at a time.

    Yields
    ------
    y : int
        First row of a strip.
    strip : NDArray[np.uint8]
        ``(rows, native.width, C)``; the last one may have fewer rows.
    """
    small = Extent(*fitted.shape[:2])
    for y in range(0, native.height, rows):
        wanted = range(y, min(y + rows, native.height))
        yield y, resized(fitted, 0, wanted, small=small, full=native)


def rows_under(wanted: range, *, small: int, full: int) -> range:
    """Rows of ``small`` that `resized` needs for these rows of ``full``."""
    above, below, _ = _between(np.arange(wanted.start, wanted.stop), small, full)
    return range(int(above[0]), int(below[-1]) + 1)


def resized(
    part: NDArray[np.uint8], top: int, wanted: range, *, small: Extent, full: Extent
) -> NDArray[np.uint8]:
    """Rows of an image brought to another size, linearly between the centres of px.

    Parameters
    ----------
    part
        ``(h, small.width, C)`` uint8: rows of the image that hold those of `rows_under`.
    top
        The first of them.
    wanted
        Rows of the result.
    small, full
        Size of the image, and the one to bring it to.

    Returns
    -------
    NDArray[np.uint8]
        ``(len(wanted), full.width, C)``.
    """
    left, right, across = _between(np.arange(full.width), small.width, full.width)
    above, below, down = _between(np.asarray(wanted), small.height, full.height)
    tall = _mixed(part[above - top], part[below - top], down[:, None, None])
    wide = _mixed(tall[:, left], tall[:, right], across[None, :, None])
    return np.rint(wide).astype(np.uint8)


def _between(
    wanted: NDArray[np.int64], small: int, full: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Source px before and after each wanted px, and how far it lies from the first to the second.

    Past the first and the last centre the px at the border counts alone.
    """
    place = ((wanted + 0.5) * (small / full) - 0.5).clip(0, small - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, small - 1), (place - before).astype(np.float32)


def _mixed(
    first: NDArray[np.generic], second: NDArray[np.generic], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    begun = first.astype(np.float32)
    mixed: NDArray[np.float32] = begun + (second.astype(np.float32) - begun) * share
    return mixed
