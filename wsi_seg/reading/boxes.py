"""Owns sums over many rectangles of a picture at once, from its running sums."""

import numpy as np
from numpy.typing import NDArray

# First row, or column, of each rectangle, and the one after its last.
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]


def box_sums(
    values: NDArray[np.bool_] | NDArray[np.float64], rows: Spans, columns: Spans
) -> NDArray[np.float64]:
    """Sum a picture over every pair of a span of rows and one of columns.

    Parameters
    ----------
    values
        ``(H, W)``; true counts 1.
    rows, columns
        Spans inside the picture, half open.

    Returns
    -------
    NDArray[np.float64]
        ``(rows, columns)``; exact for whole numbers.

    Examples
    --------
    >>> halves = np.array([0, 2]), np.array([2, 4])
    >>> box_sums(np.eye(4, dtype=bool), halves, halves).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(values, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    (top, bottom), (left, right) = rows, columns
    found: NDArray[np.float64] = (
        sums[np.ix_(bottom, right)]
        - sums[np.ix_(top, right)]
        - sums[np.ix_(bottom, left)]
        + sums[np.ix_(top, left)]
    )
    return found
