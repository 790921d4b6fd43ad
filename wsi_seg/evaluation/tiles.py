"""Owns Dice per tile, the performance of a network on its inputs instead of whole slides."""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale


def tile_dices(found: Multiscale, true: Multiscale, tile_px: int) -> dict[str, tuple[float, ...]]:
    """Compute the Dice of each tile that contains a class, by class name.

    Tiles do not overlap. Tiles without the class in both prediction and truth are skipped, because
    their Dice is 1 for any network. The mean over tiles is lower than the mean over slides and the
    pooled Dice if errors are concentrated in tiles with few pixels of a class.

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
            predicted = (ours == entry.id) & (theirs != IGNORE)
            values[entry.name] += _dice_of_row(predicted, theirs == entry.id, tile_px).tolist()
    return {name: tuple(dices) for name, dices in values.items()}


def _dice_of_row(
    found: NDArray[np.bool_], true: NDArray[np.bool_], tile_px: int
) -> NDArray[np.float64]:
    """Compute the Dice of each tile of one row that contains the class."""
    starts = np.arange(0, found.shape[1], tile_px)
    hits, ours, theirs = (
        np.add.reduceat(mask.sum(axis=0, dtype=np.int64), starts)
        for mask in (found & true, found, true)
    )
    present = ours + theirs > 0
    dice: NDArray[np.float64] = 2 * hits[present] / (ours + theirs)[present]
    return dice
