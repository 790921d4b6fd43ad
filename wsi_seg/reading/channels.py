"""Owns the largest value over the channels, or classes, of pixels."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray


def largest[T: np.generic](values: NDArray[T]) -> NDArray[T]:
    """Return the largest value over the last axis; ``max`` is slow there, because it is short.

    Parameters
    ----------
    values
        ``(..., C)``, C at least 1.

    Returns
    -------
    NDArray
        ``(...)``; for a single channel, a view.

    Examples
    --------
    >>> largest(np.array([[[1, 3], [5, 2]]])).tolist()
    [[3, 5]]
    """
    found: NDArray[T] = reduce(np.maximum, np.moveaxis(values, -1, 0))
    return found
