"""Owns run-length encoded masks: both dialects of the competitions, to and from masks and polygons.

A mask is read column by column. ``absolute`` gives each run as its first pixel, counted from 1, and
its length; ``relative`` as the pixels between it and the run before, and its length, ``-1`` for an
empty mask. Neither says how large the image is.
"""

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_seg.choices import Dialect
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
        How runs are written.

    Returns
    -------
    str
        Numbers with spaces between; an empty mask is ``-1`` (relative) or nothing (absolute).

    Examples
    --------
    >>> encode_rle(np.array([[1, 1, 1, 0, 0, 1, 0, 1, 1]], bool).T, dialect="absolute")
    '1 3 6 1 8 2'
    """
    return write_runs(find_runs(mask), dialect=dialect)


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Find runs down the columns of a mask, ``(n, 2)``: first pixel, and the one after the last."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    return np.stack([borders[::2], borders[1::2]], axis=1)


def write_runs(runs: Runs, *, dialect: Dialect) -> str:
    """Write runs, ``(n, 2)`` first pixel and pixels after the last, ascending; see `encode_rle`."""
    begins, ends = runs[:, 0], runs[:, 1]
    if dialect == "relative":
        if not len(runs):
            return "-1"
        begins = begins - np.concatenate([[0], ends[:-1]])
    else:
        begins = begins + 1
    return " ".join(map(str, np.stack([begins, ends - runs[:, 0]], axis=1).ravel().tolist()))


def read_runs(text: str, *, dialect: Dialect) -> Runs:
    """Read runs.

    Parameters
    ----------
    text
        As `encode_rle` writes it.
    dialect
        How runs are written.

    Returns
    -------
    NDArray[np.int64]
        ``(n, 2)`` first pixel and pixels after the last, column by column, ascending.

    Raises
    ------
    AnnotationError
        If it is not a list of pairs, or runs overlap or are empty.
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
        raise AnnotationError(f"got RLE of {len(numbers)} numbers; expected pairs")
    begins, lengths = numbers[::2], numbers[1::2]
    if (lengths < 1).any() or (begins < 0).any():
        raise AnnotationError("got RLE with a run of less than 1 px or before the first pixel")
    if dialect == "relative":
        begins = np.cumsum(begins) + np.cumsum(lengths) - lengths
    else:
        order = np.argsort(begins, kind="stable")  # their order means nothing
        begins, lengths = begins[order] - 1, lengths[order]
    runs = np.stack([begins, begins + lengths], axis=1)
    if (runs[:, 1] <= runs[:, 0]).any():
        raise AnnotationError("got RLE of numbers beyond any image")
    if (runs[1:, 0] < runs[:-1, 1]).any() or (runs < 0).any():
        raise AnnotationError(f"got {dialect} RLE whose runs overlap; is it the other dialect?")
    return runs


def decode_rle(text: str, *, height: int, width: int, dialect: Dialect) -> NDArray[np.bool_]:
    """Decode a mask, ``(H, W)`` bool; see `encode_rle`.

    Raises
    ------
    AnnotationError
        If the text is wrong or a run ends behind the last pixel.
    """
    runs = require_inside(read_runs(text, dialect=dialect), Extent(height=height, width=width))
    steps = np.zeros(height * width + 1, dtype=np.int8)
    # Runs may touch: what ends and begins at one pixel cancels out.
    np.add.at(steps, runs[:, 0], 1)
    np.add.at(steps, runs[:, 1], -1)
    mask: NDArray[np.bool_] = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
    return mask.reshape(height, width, order="F")


def require_inside(runs: Runs, extent: Extent) -> Runs:
    """Return the runs if they are inside an image of this size.

    Raises
    ------
    AnnotationError
        If one ends behind the last pixel.
    """
    if len(runs) and int(runs[-1, 1]) > extent.area:
        raise AnnotationError(
            f"RLE goes to pixel {int(runs[-1, 1])}; the image has {extent.area} ({extent}); is it "
            "of another size?"
        )
    return runs


def dialect_of(masks: Iterable[tuple[str, Extent | None]]) -> tuple[Dialect, bool]:
    """Tell the dialect of a file from its masks.

    A dialect fits if no runs overlap and none ends behind its image. Where both fit all masks,
    ``absolute`` is taken, which most files are. Masks that fit neither tell nothing.

    Parameters
    ----------
    masks
        Each with the size of its image, None where that is unknown.

    Returns
    -------
    dialect : Dialect
        The one that fits.
    sure : bool
        Whether the other one does not.

    Raises
    ------
    AnnotationError
        If some masks fit one dialect alone and some the other, or both fit and no mask has two
        runs.
    """
    left = set(_DIALECTS)
    two_runs, empty = False, True
    for text, extent in masks:
        if is_empty(text):
            continue
        empty = False
        fitting = {dialect for dialect in _DIALECTS if _fits(text, dialect, extent)}
        left &= fitting or left
        two_runs |= len(text.split(None, 2)) > 2  # two runs
    if not left:
        raise AnnotationError("some of its masks are absolute RLE alone, and some relative alone")
    if len(left) == 2 and not two_runs and not empty:
        raise AnnotationError("the RLE dialect of its masks is unclear; name it with --rle")
    sure = empty or len(left) == 1
    return ("absolute" if "absolute" in left else "relative"), sure


def is_empty(text: str) -> bool:
    """Whether the text of a mask says that nothing is in it, in any dialect."""
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
    """Polygons of the pixels of some runs, along pixel borders, one for each connected object.

    Parameters
    ----------
    runs
        ``(n, 2)`` as `read_runs` gives them; several masks of one image may follow each other.
    height
        Height of the image in pixels.
    """
    if not len(runs):
        return []
    first, last = runs[:, 0] // height, (runs[:, 1] - 1) // height
    pieces = last - first + 1  # a run that goes on in the next column is cut there
    run = np.repeat(np.arange(len(runs)), pieces)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    top = np.maximum(runs[run, 0], column * height) - column * height
    bottom = np.minimum(runs[run, 1], (column + 1) * height) - column * height
    union = shapely.union_all(shapely.box(column, top, column + 1, bottom))
    return [
        part for part in shapely.get_parts(shapely.simplify(union, 0)) if isinstance(part, Polygon)
    ]
