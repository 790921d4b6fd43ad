"""Owns the seam score: how much more a prediction changes across borders of tiles than inside.

Compared are neighbouring pixels along rows and along columns, on borders of tiles and elsewhere. A
score of 1 means that nothing shows where tiles begin and end; without overlap 2 to 10 is common.
Steps are summed strip by strip while rows are in memory; sums are of whole numbers, so the score
does not depend on how a slide was cut into strips or who predicted them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.geometry import Region
from wsi_seg.infer.plan import SlidePlan
from wsi_seg.infer.transfer import copy_to_device
from wsi_seg.store import Multiscale


@dataclass(frozen=True, slots=True)
class Steps:
    """Sums of the differences between neighbouring pixels of one strip.

    Parameters
    ----------
    elsewhere, border
        Inside the strip, away from borders of tiles and on them.
    joint
        From the strip's first row to the row above it; None where that was not in memory.
    """

    elsewhere: int
    border: int
    joint: int | None


class StepSums:
    """Sums the steps of rows that arrive from top to bottom, on their device.

    Parameters
    ----------
    plan
        Where borders of tiles are.
    columns
        Pixel columns that the rows have.
    device
        Where the rows are.
    """

    def __init__(self, plan: SlidePlan, columns: range, device: torch.device) -> None:
        self._down = borders(plan.ys, plan.tile_px, plan.extent.height)
        across = borders(plan.xs, plan.tile_px, plan.extent.width)
        self._across = copy_to_device(across[columns.start + 1 : columns.stop].copy(), device)
        self._down_there = copy_to_device(self._down, device)
        self._above: tuple[int, torch.Tensor] | None = None

    def of(self, y: int, rows: torch.Tensor, *, first: bool) -> torch.Tensor:
        """Sum the steps inside of some rows and to the row above them, if that is in memory.

        Parameters
        ----------
        y
            First row.
        rows
            ``(channels, rows, columns)`` uint8.
        first
            Whether a strip begins here, so that the step to the row above is its joint.

        Returns
        -------
        torch.Tensor
            Elsewhere, on borders, joint: ``(3,)`` int64.
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
        """Whether the row above ``y`` was the last one that arrived."""
        return self._above is not None and self._above[0] == y


def seam_score(image: Multiscale, plan: SlidePlan, strips: Mapping[int, Steps]) -> float | None:
    """Score a prediction from the steps of all its strips.

    Parameters
    ----------
    image
        Probabilities, level 0 complete: read where two strips meet that were predicted separately.
    plan
        What they were made by.
    strips
        Steps of each strip, by its index.

    Returns
    -------
    float or None
        Mean step across borders over mean step elsewhere; None where there is no border between
        tiles, no step at all, or strips whose steps are not known.
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
    """Sum of the steps between row ``y`` and the one above it, read from disk."""
    width = image.pyramid.extent.width
    rows = image.read(Region(level=0, y=y - 1, x=0, height=2, width=width), cached=False)
    above, below = rows.astype(np.int64)
    return int(np.abs(below - above).sum())


def borders(starts: tuple[int, ...], tile_px: int, length: int) -> NDArray[np.bool_]:
    """Whether a tile begins or has just ended at each pixel of an axis, ``(length,)``."""
    found = np.zeros(length + tile_px + 1, dtype=bool)
    found[list(starts)] = True
    found[[start + tile_px for start in starts]] = True
    found[0] = False
    return found[:length]
