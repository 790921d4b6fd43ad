"""Owns summing many rectangles of an array at once, with an integral image."""

import numpy as np
from numpy.typing import NDArray

# First row (or column) of each rectangle, and the one after its last.
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]


def box_sums(
    values: NDArray[np.bool_] | NDArray[np.float64], rows: Spans, columns: Spans
) -> NDArray[np.float64]:
    """Sum an array over each combination of a row span and a column span.

    Parameters
    ----------
    values
        ``(H, W)`` bool or float64; True counts as 1.
    rows, columns
        Half-open spans inside the array.

    Returns
    -------
    NDArray[np.float64]
        ``(row spans, column spans)``; exact for whole numbers.

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
    totals: NDArray[np.float64] = (
        sums[np.ix_(bottom, right)]
        - sums[np.ix_(top, right)]
        - sums[np.ix_(bottom, left)]
        + sums[np.ix_(top, left)]
    )
    return totals
