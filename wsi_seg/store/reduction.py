"""Owns the downsampling of levels: area means for images, nearest neighbours for labels."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent

Pixels = NDArray[np.uint8]
Edges = NDArray[np.int64]

# Numbers of channels for which OpenCV averages in integers, rounded half up like `area_mean`.
_EXACT_IN_OPENCV = {1, 3, 4}
# OpenCV splits larger results among its own threads, which do not survive a fork.
_BLOCK_PX = 2**16


def is_half(full: Extent, small: Extent) -> bool:
    """Whether a level has half the size of the finer one, rounded up, as `halve` needs."""
    return small == Extent(height=-(-full.height // 2), width=-(-full.width // 2))


def halve(pixels: Pixels, out: Pixels, *, nearest: bool) -> None:
    """Downsample by 2.

    An odd last row or column is repeated, so its mean is that of the existing pixels.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)`` uint8.
    out
        Filled; ``(ceil(H / 2), ceil(W / 2))`` or the same with ``C`` channels, uint8. Can be
        non-contiguous.
    nearest
        Take the pixel nearest to each centre (labels) instead of the mean, rounded half up
        (images).
    """
    rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
    even, target = pixels[: 2 * rows, : 2 * columns], out[:rows, :columns]
    if nearest:
        target[...] = even[1::2, 1::2]
    elif even.size:
        _mean_of_four(even, target)
    if pixels.shape[1] % 2:
        twice = pixels[: 2 * rows, -1:].repeat(2, axis=1)
        halve(twice, out[:rows, columns:], nearest=nearest)
    if pixels.shape[0] % 2:
        halve(pixels[-1:].repeat(2, axis=0), out[rows:], nearest=nearest)


def _mean_of_four(pixels: Pixels, out: Pixels) -> None:
    height, width = out.shape[:2]
    by_opencv = pixels.ndim == 2 or pixels.shape[2] in _EXACT_IN_OPENCV
    step = max(1, _BLOCK_PX // width)
    for y in range(0, height, step):
        target = out[y : y + step]
        source = pixels[2 * y : 2 * (y + len(target))]
        if by_opencv:
            import cv2  # imported here because few commands downsample

            cv2.resize(source, (width, len(target)), dst=target, interpolation=cv2.INTER_AREA)
            continue
        pairs = np.add(source[0::2], source[1::2], dtype=np.uint16)
        # Two uint16 sums are added as one uint32: neither overflows into the other.
        pairs = pairs.view(np.uint32 if pixels.shape[2] == 2 else np.uint16)
        fours = (pairs[:, 0::2] + pairs[:, 1::2]).view(np.uint16)
        target[...] = (fours + 2) >> 2


def cell_edges(span: tuple[int, int], full: int, small: int) -> Edges:
    """Return the borders in the finer level of the cells that coarser pixels average.

    Parameters
    ----------
    span
        First pixel of the coarser level along one axis, and the pixel after the last one.
    full, small
        Length of the finer and of the coarser level, in pixels.

    Returns
    -------
    NDArray[np.int64]
        Ascending borders in pixels of the finer level, ``(span[1] - span[0] + 1,)``.
    """
    places = np.arange(span[0], span[1] + 1, dtype=np.int64)
    if small == -(-full // 2):
        return np.minimum(places * 2, full)
    return places * full // small


def reduced(pixels: Pixels, y_edges: Edges, x_edges: Edges, *, nearest: bool) -> Pixels:
    """Downsample by any ratio, each cell to one pixel; see `halve` and `area_mean`."""
    if not nearest:
        return area_mean(pixels, y_edges, x_edges)
    rows, columns = ((edges[:-1] + edges[1:]) // 2 for edges in (y_edges, x_edges))
    taken: Pixels = pixels[rows][:, columns]
    return taken


def area_mean(pixels: Pixels, y_edges: Edges, x_edges: Edges) -> Pixels:
    """Return the mean of the pixels of each cell, rounded half up.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)`` uint8.
    y_edges, x_edges
        Ascending borders of the cells, from 0 to H and W.

    Returns
    -------
    NDArray[np.uint8]
        One pixel for each cell, ``(len(y_edges) - 1, len(x_edges) - 1)`` or with ``C`` channels.
    """
    counts = np.diff(y_edges)[:, None] * np.diff(x_edges)
    counts = counts.reshape(*counts.shape, *(1 for _ in pixels.shape[2:]))
    sums = _sums(_sums(pixels, y_edges).swapaxes(0, 1), x_edges).swapaxes(0, 1)
    means: Pixels = ((sums + counts // 2) // counts).astype(np.uint8)
    return means


def _sums(values: NDArray[np.integer], edges: Edges) -> NDArray[np.int64]:
    """Sum along the first axis between edges."""
    return np.stack(
        [values[begin:end].sum(axis=0, dtype=np.int64) for begin, end in pairwise(edges.tolist())]
    )
