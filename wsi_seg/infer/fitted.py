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
    left, right, across = _between(np.arange(native.width), fitted.shape[1], native.width)
    for y in range(0, native.height, rows):
        wanted = np.arange(y, min(y + rows, native.height))
        above, below, down = _between(wanted, fitted.shape[0], native.height)
        tall = _mixed(fitted[above], fitted[below], down[:, None, None])
        wide = _mixed(tall[:, left], tall[:, right], across[None, :, None])
        yield y, np.rint(wide).astype(np.uint8)


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
