"""Owns Dice by tile: how a network does on the tiles it sees, not on whole slides."""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale


def tile_dices(found: Multiscale, true: Multiscale, tile_px: int) -> dict[str, tuple[float, ...]]:
    """Dice of each tile that shows a class, by class.

    Tiles are side by side at the prediction's resolution. Those where neither prediction nor
    truth shows the class are left out: their Dice would be 1 whatever the network does. So their
    mean differs from the mean over slides and from the Dice of all pixels pooled, and falls below
    both where errors are in tiles with little of a class.

    Parameters
    ----------
    found, true
        Label maps; classes are matched by name.
    tile_px
        Side of a tile in pixels of ``found``.
    """
    classes = found.classes
    recode = classes.recoding(true.classes)
    values: dict[str, list[float]] = {entry.name: [] for entry in classes}
    extent = found.pyramid.extent
    for row in extent.strips(tile_px):
        ours = found.read(row)
        theirs = recode[read_label(true, extent, row.y, 0, height=row.height, width=row.width)]
        for entry in classes:
            right = theirs == entry.id
            taken = (ours == entry.id) & (theirs != IGNORE)
            values[entry.name] += _dice_of_row(taken, right, tile_px).tolist()
    return {name: tuple(dices) for name, dices in values.items()}


def _dice_of_row(
    found: NDArray[np.bool_], true: NDArray[np.bool_], tile_px: int
) -> NDArray[np.float64]:
    """Dice of each tile of one row that shows the class."""
    starts = np.arange(0, found.shape[1], tile_px)
    hits, ours, theirs = (
        np.add.reduceat(mask.sum(axis=0, dtype=np.int64), starts)
        for mask in (found & true, found, true)
    )
    shown = ours + theirs > 0
    dice: NDArray[np.float64] = 2 * hits[shown] / (ours + theirs)[shown]
    return dice
