"""Owns the seam score: how much more a prediction changes across borders of windows than inside.

Compared are neighbouring px along rows and along columns, on borders of windows and elsewhere. A
score of 1 means that nothing shows where windows begin and end; without overlap 2 to 10 is common.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Region
from wsi_seg.infer.plan import SlidePlan
from wsi_seg.store import Multiscale

_BAND_PX = 512

# Px that are compared at a time; differences take several times their bytes.
_BLOCK = 2**20


def seam_score(image: Multiscale, plan: SlidePlan) -> float | None:
    """Measure a finished prediction; memory depends on its width only.

    Parameters
    ----------
    image
        Probabilities, level 0 complete.
    plan
        What they were made by.

    Returns
    -------
    float or None
        Mean step across borders over mean step elsewhere; None where there is no border between
        windows, no step at all, or the result of a fitted slide was resized.
    """
    if plan.native is not None:
        return None  # borders of windows do not lie on px any more
    extent = plan.extent
    down, across = _borders(plan.ys, plan.tile_px, extent.height), _borders(
        plan.xs, plan.tile_px, extent.width
    )  # fmt: skip
    portion = max(1, _BLOCK // extent.width)
    sums, counts = np.zeros(2), np.zeros(2)  # elsewhere, on borders
    last: NDArray[np.int16] | None = None
    for y in range(0, extent.height, _BAND_PX):
        height = min(_BAND_PX, extent.height - y)
        region = Region(level=0, y=y, x=0, height=height, width=extent.width)
        band = image.read(region, cached=False)
        for top in range(0, height, portion):
            rows = band[top : top + portion].astype(np.int16)
            steps = np.abs(np.diff(rows, axis=1)).sum(axis=(0, 2))
            _add(sums, counts, steps, across[1:], len(rows))
            joined = rows if last is None else np.concatenate([last, rows])
            steps = np.abs(np.diff(joined, axis=0)).sum(axis=(1, 2))
            after = y + top + len(rows)
            _add(sums, counts, steps, down[after - len(steps) : after], extent.width)
            last = rows[-1:]
    if not counts.all() or not sums[0]:
        return None
    means = sums / counts
    return float(means[1] / means[0])


def _borders(starts: tuple[int, ...], tile_px: int, length: int) -> NDArray[np.bool_]:
    """Whether a window begins or has just ended at each px of an axis, ``(length,)``."""
    found = np.zeros(length + tile_px + 1, dtype=bool)
    found[list(starts)] = True
    found[[start + tile_px for start in starts]] = True
    found[0] = False
    return found[:length]


def _add(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    steps: NDArray[np.int64],
    border: NDArray[np.bool_],
    px: int,
) -> None:
    for kind, where in enumerate((~border, border)):
        sums[kind] += steps[where].sum()
        counts[kind] += int(where.sum()) * px
