"""Owns confidence intervals over slides: slides are drawn again, with replacement.

Slides, not pixels, are what varies independently; one slide alone has no interval.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_LEVEL = 0.95
# Numbers held at a time.
_BLOCK = 1 << 22

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def interval(rows: NDArray[np.float64], figure: Figure) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a figure of several slides, at 95 %.

    The same rows give the same interval.

    Parameters
    ----------
    rows
        ``(slides, n)``, what the figure needs of each slide.
    figure
        Maps ``(draws, slides, n)`` to ``(draws,)``.

    Returns
    -------
    tuple or None
        Lower and upper end; None for fewer than two slides.
    """
    if len(rows) < 2:
        return None
    draw = np.random.default_rng(0).integers(0, len(rows), (_DRAWS, len(rows)))
    tail = (1 - _LEVEL) / 2
    step = max(1, _BLOCK // rows.size)  # all draws at once would take GB for many slides
    figures = [figure(rows[draw[start : start + step]]) for start in range(0, _DRAWS, step)]
    low, high = np.quantile(np.concatenate(figures), (tail, 1 - tail))
    return float(low), float(high)


def mean_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over slides of their only value."""
    mean: NDArray[np.float64] = rows[..., 0].mean(axis=-1)
    return mean


def dice_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pooled Dice of ``(hits, found, true)`` summed over slides; 1 where all is empty."""
    hits, found, true = np.moveaxis(rows.sum(axis=-2), -1, 0)
    total = found + true
    dice: NDArray[np.float64] = np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)
    return dice
