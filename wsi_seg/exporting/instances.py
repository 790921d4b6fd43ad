"""Owns label maps of objects: each pixel has the number of its object in the slide's table."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_seg.exporting.outlines import Part, read_ids
from wsi_seg.geometry import Region
from wsi_seg.postprocess.components import ConnectedComponents, Runs

# Rows in memory at a time: those of a shard.
STRIP_PX = 1024


def instance_strips(part: Part) -> Iterator[tuple[Region, NDArray[np.uint32]]]:
    """Give each pixel the number of its object, from top to bottom; strips are read twice.

    Parameters
    ----------
    part
        Label map with one id for each pixel.

    Yields
    ------
    strip : Region
        Rows of the label map.
    numbers : NDArray[np.uint32]
        ``(h, W)`` 0 for background, else 1, 2, 3 ... as in the table of objects.
    """
    label = part.label
    counting, painting = ConnectedComponents(), ConnectedComponents()
    for strip in label.pyramid.extent.strips(STRIP_PX):
        counting.add(strip.y, read_ids(label, strip))
    numbers = (counting.objects() + part.begin + 1).astype(np.uint32)
    for strip in label.pyramid.extent.strips(STRIP_PX):
        runs = painting.add(strip.y, read_ids(label, strip))
        yield strip, _painted(runs, numbers, strip)


def _painted(runs: Runs, numbers: NDArray[np.uint32], strip: Region) -> NDArray[np.uint32]:
    size = strip.height * strip.width
    begin, end = runs.begin - strip.y * strip.width, runs.end - strip.y * strip.width
    borders = np.concatenate([[0], np.stack([begin, end], axis=1).ravel(), [size]])
    values = np.zeros(len(borders) - 1, dtype=np.uint32)
    values[1::2] = numbers[runs.label]
    return np.repeat(values, np.diff(borders)).reshape(strip.height, strip.width)
