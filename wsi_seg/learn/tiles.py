"""Owns Dice by tile: how a network does in the windows it sees, not on whole slides."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.data.scaled import read_label
from wsi_seg.geometry import Region
from wsi_seg.infer.output import LABEL
from wsi_seg.store import Multiscale, SlideStore, open_collection


def tile_dice(
    predictions: Path, slides: Sequence[SlideStore], label: str, *, tile_px: int
) -> dict[str, float]:
    """Mean Dice over tiles, of each class that any tile shows.

    Tiles lie side by side at the prediction's resolution. Those where neither prediction nor
    truth shows the class are left out: their Dice would be 1 whatever the network does. So this
    differs from the mean over slides and from the Dice of all px pooled, and falls below both
    where errors lie in tiles with little of a class.

    Parameters
    ----------
    predictions
        Collection with a prediction of each slide.
    slides
        The slides' own stores.
    label
        Name of the truth.
    tile_px
        Side of a tile.
    """
    found = open_collection(predictions)
    values: dict[str, list[float]] = {}
    for slide in slides:
        prediction, truth = found[slide.name].label(LABEL), slide.label(label)
        classes, drawn = _classes(prediction), _classes(truth)
        extent = prediction.pyramid.extent
        for y in range(0, extent.height, tile_px):
            height = min(tile_px, extent.height - y)
            ours = prediction.read(Region(level=0, y=y, x=0, height=height, width=extent.width))
            theirs = read_label(truth, extent, y, 0, height=height, width=extent.width)
            for entry in classes:
                right = theirs == drawn.id_of(entry.name)
                taken = (ours == entry.id) & (theirs != IGNORE)
                values.setdefault(entry.name, []).extend(_dice_of_row(taken, right, tile_px))
    return {name: statistics.fmean(scores) for name, scores in values.items() if scores}


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


def _classes(label: Multiscale) -> ClassTable:
    rows = label.attributes["classes"]  # scored before, so it has them
    assert isinstance(rows, list)
    return ClassTable.from_json(rows)
