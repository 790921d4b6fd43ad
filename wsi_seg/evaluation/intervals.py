"""Owns bootstrap confidence intervals over slides.

Slides are resampled, not pixels, because pixels of a slide are not independent.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_LEVEL = 0.95
# Numbers in memory at a time.
_BLOCK = 1 << 22

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def interval(rows: NDArray[np.float64], figure: Figure) -> tuple[float, float] | None:
    """Compute the 95 % percentile bootstrap interval of a statistic over slides.

    The result is deterministic.

    Parameters
    ----------
    rows
        ``(slides, n)`` float64, the values of each slide.
    figure
        Maps values ``(draws, slides, n)`` to statistics ``(draws,)``.

    Returns
    -------
    tuple or None
        Lower and upper end; None for fewer than two slides.
    """
    if len(rows) < 2:
        return None
    draw = np.random.default_rng(0).integers(0, len(rows), (_DRAWS, len(rows)))
    tail = (1 - _LEVEL) / 2
    step = max(1, _BLOCK // rows.size)  # all draws at once would need GB for many slides
    figures = [figure(rows[draw[start : start + step]]) for start in range(0, _DRAWS, step)]
    low, high = np.quantile(np.concatenate(figures), (tail, 1 - tail))
    return float(low), float(high)


def mean_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the only value ``(..., slides, 1)`` over slides, to ``(...,)``."""
    mean: NDArray[np.float64] = rows[..., 0].mean(axis=-1)
    return mean


def dice_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pool the Dice of ``(..., slides, 3)`` hits, found and true over slides; 1 if all are 0."""
    hits, found, true = np.moveaxis(rows.sum(axis=-2), -1, 0)
    total = found + true
    dice: NDArray[np.float64] = np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)
    return dice
