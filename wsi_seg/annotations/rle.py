"""Owns run-length encoded masks in both dialects of Kaggle competitions.

Pixels are counted down the columns. ``absolute`` writes each run as its first pixel, counted from
1, and its length; ``relative`` as its distance from the end of the previous run, and its length,
and an empty mask as ``-1``. Neither states the size of the image.
"""

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_seg.choices import Dialect
from wsi_seg.counts import counted
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits

Runs = NDArray[np.int64]

_DIALECTS: tuple[Dialect, ...] = ("absolute", "relative")


def encode_rle(mask: NDArray[np.bool_], *, dialect: Dialect) -> str:
    """Encode a mask.

    Parameters
    ----------
    mask
        ``(H, W)`` bool.
    dialect
        RLE dialect.

    Returns
    -------
    str
        Numbers separated by spaces; an empty mask is ``-1`` (relative) or empty (absolute).

    Examples
    --------
    >>> encode_rle(np.array([[1, 1, 1, 0, 0, 1, 0, 1, 1]], bool).T, dialect="absolute")
    '1 3 6 1 8 2'
    """
    return write_runs(find_runs(mask), dialect=dialect)


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Return the runs down the columns of a mask, ``(n, 2)`` int64: first pixel, last plus one."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    return np.stack([borders[::2], borders[1::2]], axis=1)


def write_runs(runs: Runs, *, dialect: Dialect) -> str:
    """Encode ascending runs, ``(n, 2)``: first pixel, last plus one; see `encode_rle`."""
    begins, ends = runs[:, 0], runs[:, 1]
    if dialect == "relative":
        if not len(runs):
            return "-1"
        begins = begins - np.concatenate([[0], ends[:-1]])
    else:
        begins = begins + 1
    return " ".join(map(str, np.stack([begins, ends - runs[:, 0]], axis=1).ravel().tolist()))


def read_runs(text: str, *, dialect: Dialect) -> Runs:
    """Parse run-length encoding to runs.

    Parameters
    ----------
    text
        Text in the format of `encode_rle`.
    dialect
        RLE dialect.

    Returns
    -------
    NDArray[np.int64]
        ``(n, 2)``, ascending: first pixel, last plus one, counted from 0 down the columns.

    Raises
    ------
    AnnotationError
        If the text is not a list of pairs, or runs overlap or are empty.
    """
    if is_empty(text):
        return np.empty((0, 2), dtype=np.int64)
    if text.count(" ") > limits().vertices:
        raise AnnotationError(f"got RLE of too many numbers; {advice('vertices')}")
    try:
        numbers = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise AnnotationError(f"got RLE {text[:40]!r}; expected whole numbers") from error
    if len(numbers) % 2:
        raise AnnotationError(f"got RLE of {counted(len(numbers), 'number')}; expected pairs")
    begins, lengths = numbers[::2], numbers[1::2]
    if (lengths < 1).any() or (begins < 0).any():
        raise AnnotationError("got RLE with a run of less than 1 px or before the first pixel")
    if dialect == "relative":
        begins = np.cumsum(begins) + np.cumsum(lengths) - lengths
    else:
        order = np.argsort(begins, kind="stable")  # absolute runs may be in any order
        begins, lengths = begins[order] - 1, lengths[order]
    runs = np.stack([begins, begins + lengths], axis=1)
    if (runs[:, 1] <= runs[:, 0]).any():
        raise AnnotationError("got RLE of numbers beyond the size of any image")
    if (runs[1:, 0] < runs[:-1, 1]).any() or (runs < 0).any():
        raise AnnotationError(f"got {dialect} RLE whose runs overlap; is it the other dialect?")
    return runs


def decode_rle(text: str, *, height: int, width: int, dialect: Dialect) -> NDArray[np.bool_]:
    """Decode a mask, ``(H, W)`` bool; see `encode_rle`.

    Raises
    ------
    AnnotationError
        If the text is not valid, or a run extends beyond the last pixel.
    """
    runs = require_inside(read_runs(text, dialect=dialect), Extent(height=height, width=width))
    steps = np.zeros(height * width + 1, dtype=np.int8)
    # Where runs touch, end and start cancel out.
    np.add.at(steps, runs[:, 0], 1)
    np.add.at(steps, runs[:, 1], -1)
    mask: NDArray[np.bool_] = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
    return mask.reshape(height, width, order="F")


def require_inside(runs: Runs, extent: Extent) -> Runs:
    """Return the runs if they are inside an image of this size.

    Raises
    ------
    AnnotationError
        If a run extends beyond the last pixel.
    """
    if len(runs) and int(runs[-1, 1]) > extent.area:
        raise AnnotationError(
            f"got RLE up to pixel {int(runs[-1, 1])}; expected at most {extent.area} ({extent}); "
            "check whether the masks are of an image of another size"
        )
    return runs


def dialect_of(masks: Iterable[tuple[str, Extent | None]]) -> tuple[Dialect, bool]:
    """Detect the dialect of a file from its masks.

    A dialect matches if no runs overlap or extend beyond the image. If both match all masks, the
    more common ``absolute`` is returned. Masks that match neither are ignored.

    Parameters
    ----------
    masks
        Each mask with the size of its image, or None if that is unknown.

    Returns
    -------
    dialect : Dialect
        The dialect that matches.
    sure : bool
        Whether the other dialect does not match.

    Raises
    ------
    AnnotationError
        If some masks match only one dialect and some only the other, or both match and no mask has
        two runs.
    """
    left = set(_DIALECTS)
    two_runs, empty = False, True
    for text, extent in masks:
        if is_empty(text):
            continue
        empty = False
        fitting = {dialect for dialect in _DIALECTS if _fits(text, dialect, extent)}
        left &= fitting or left
        two_runs |= len(text.split(None, 2)) > 2
    if not left:
        raise AnnotationError(
            "got some masks that are only valid as absolute RLE, and some only as relative; "
            "expected one dialect"
        )
    if len(left) == 2 and not two_runs and not empty:
        raise AnnotationError("the RLE dialect of its masks is unclear; name it with --rle")
    sure = empty or len(left) == 1
    return ("absolute" if "absolute" in left else "relative"), sure


def is_empty(text: str) -> bool:
    """Return whether the text is an empty mask, in either dialect."""
    return text.strip() in {"", "-1"}


def _fits(text: str, dialect: Dialect, extent: Extent | None) -> bool:
    try:
        runs = read_runs(text, dialect=dialect)
        if extent is not None:
            require_inside(runs, extent)
    except AnnotationError:
        return False
    return True


def outline_runs(runs: Runs, height: int) -> list[Polygon]:
    """Return the outlines of runs along pixel borders, one polygon per connected object.

    Parameters
    ----------
    runs
        ``(n, 2)`` as returned by `read_runs`; several masks of one image may be concatenated.
    height
        Height of the image in pixels.
    """
    if not len(runs):
        return []
    first, last = runs[:, 0] // height, (runs[:, 1] - 1) // height
    pieces = last - first + 1  # a run is split where it continues in the next column
    run = np.repeat(np.arange(len(runs)), pieces)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    top = np.maximum(runs[run, 0], column * height) - column * height
    bottom = np.minimum(runs[run, 1], (column + 1) * height) - column * height
    union = shapely.union_all(shapely.box(column, top, column + 1, bottom))
    return [
        part for part in shapely.get_parts(shapely.simplify(union, 0)) if isinstance(part, Polygon)
    ]
