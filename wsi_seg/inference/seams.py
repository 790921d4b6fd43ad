"""Owns the seam score: how much more a prediction changes across tile borders than elsewhere.

The score is the mean absolute difference of neighbouring pixels across tile borders, divided by
that of all other neighbours. A score of 1 means that borders are invisible; 2 to 10 is common
without overlap. Differences are summed strip by strip while rows are in memory. Sums are integers,
so the score does not depend on the strips or on the processes that predicted them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.geometry import Region
from wsi_seg.inference.plan import SlidePlan
from wsi_seg.inference.transfer import copy_to_device
from wsi_seg.store import Multiscale


@dataclass(frozen=True, slots=True)
class Steps:
    """Sums of absolute differences between neighbouring pixels of one strip.

    Parameters
    ----------
    elsewhere, border
        Inside the strip: away from tile borders, and across them.
    joint
        Between the strip's first row and the row above it; None if that was not in memory.
    """

    elsewhere: int
    border: int
    joint: int | None


class StepSums:
    """Sums the steps of rows that arrive from top to bottom, on their device.

    Parameters
    ----------
    plan
        Grid of tiles.
    columns
        Pixel columns of the rows.
    device
        Device of the rows.
    """

    def __init__(self, plan: SlidePlan, columns: range, device: torch.device) -> None:
        self._down = borders(plan.ys, plan.tile_px, plan.extent.height)
        across = borders(plan.xs, plan.tile_px, plan.extent.width)
        self._across = copy_to_device(across[columns.start + 1 : columns.stop].copy(), device)
        self._down_there = copy_to_device(self._down, device)
        self._above: tuple[int, torch.Tensor] | None = None

    def of(self, y: int, rows: torch.Tensor, *, first: bool) -> torch.Tensor:
        """Sum the steps inside some rows, and to the row above them if that is in memory.

        Parameters
        ----------
        y
            First row.
        rows
            ``(channels, rows, columns)`` uint8.
        first
            Whether ``y`` is the first row of a strip, whose step to the row above is ``joint``.

        Returns
        -------
        torch.Tensor
            Elsewhere, border and joint, ``(3,)`` int64; see `Steps`.
        """
        values = rows.to(torch.int16)
        wide = (values[:, :, 1:] - values[:, :, :-1]).abs_().sum((0, 1), dtype=torch.int64)
        on_border = (wide * self._across).sum()
        tall = (values[:, 1:] - values[:, :-1]).abs_().sum((0, 2), dtype=torch.int64)
        inner = slice(y + 1, y + rows.shape[1])
        if self._down[inner].any():
            on_border = on_border + (tall * self._down_there[inner]).sum()
        joint = torch.zeros_like(on_border)
        elsewhere = wide.sum() + tall.sum() - on_border
        if self.follows(y):
            assert self._above is not None
            step = (values[:, 0] - self._above[1]).abs_().sum(dtype=torch.int64)
            if first:
                joint = step
            elif self._down[y]:
                on_border = on_border + step
            else:
                elsewhere = elsewhere + step
        self._above = (y + rows.shape[1], values[:, -1].clone())
        return torch.stack([elsewhere, on_border, joint])

    def follows(self, y: int) -> bool:
        """Whether the last row that arrived is the row above ``y``."""
        return self._above is not None and self._above[0] == y


def seam_score(image: Multiscale, plan: SlidePlan, strips: Mapping[int, Steps]) -> float | None:
    """Compute the seam score of a prediction from the steps of all its strips.

    Parameters
    ----------
    image
        Probabilities with a complete level 0; read only between strips predicted separately.
    plan
        Plan of the prediction.
    strips
        Steps of each strip, by its index.

    Returns
    -------
    float or None
        Mean step across borders divided by mean step elsewhere; None if there are no borders
        between tiles, no steps elsewhere, or strips without known steps.
    """
    if set(strips) != set(range(len(plan.strips))):
        return None
    down = borders(plan.ys, plan.tile_px, plan.extent.height)
    across = borders(plan.xs, plan.tile_px, plan.extent.width)
    counts, sums = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    for mask, length in ((across, plan.extent.height), (down, plan.extent.width)):
        border = int(mask[1:].sum())
        counts += np.array([len(mask) - 1 - border, border]) * length
    for index, steps in strips.items():
        sums += [steps.elsewhere, steps.border]
        if (y := plan.strips[index][0]) > 0:
            joint = _joint(image, y) if steps.joint is None else steps.joint
            sums[int(down[y])] += joint
    if not counts.all() or not sums[0]:
        return None
    means = sums / counts
    return float(means[1] / means[0])


def _joint(image: Multiscale, y: int) -> int:
    """Sum the steps between row ``y`` and the row above it, read from disk."""
    width = image.pyramid.extent.width
    rows = image.read(Region(level=0, y=y - 1, x=0, height=2, width=width), cached=False)
    above, below = rows.astype(np.int64)
    return int(np.abs(below - above).sum())


def borders(starts: tuple[int, ...], tile_px: int, length: int) -> NDArray[np.bool_]:
    """Whether a tile starts, or has just ended, at each pixel of an axis, ``(length,)`` bool."""
    found = np.zeros(length + tile_px + 1, dtype=bool)
    found[list(starts)] = True
    found[[start + tile_px for start in starts]] = True
    found[0] = False
    return found[:length]
