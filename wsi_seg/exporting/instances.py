"""Owns instance label maps, whose values are the object numbers of the slide's table."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_seg.exporting.outlines import Part, read_ids
from wsi_seg.geometry import Region
from wsi_seg.postprocess.components import ConnectedComponents, Runs

# Rows in memory at a time, equal to the height of a shard.
STRIP_PX = 1024


def instance_strips(part: Part) -> Iterator[tuple[Region, NDArray[np.uint32]]]:
    """Label each pixel with the number of its object, in strips from top to bottom.

    The label map is read twice.

    Parameters
    ----------
    part
        Label map with one class id per pixel.

    Yields
    ------
    strip : Region
        Region of a strip, over the full width.
    numbers : NDArray[np.uint32]
        ``(h, W)`` object numbers 1, 2, 3 ... as in the object table; 0 is background.
    """
    label = part.label
    counting, painting = ConnectedComponents(), ConnectedComponents()
    for strip in label.pyramid.extent.strips(STRIP_PX):
        counting.add(strip.y, read_ids(label, strip))
    numbers = (counting.objects() + part.begin + 1).astype(np.uint32)
    for strip in label.pyramid.extent.strips(STRIP_PX):
        runs = painting.add(strip.y, read_ids(label, strip))
        yield strip, _decoded(runs, numbers, strip)


def _decoded(runs: Runs, numbers: NDArray[np.uint32], strip: Region) -> NDArray[np.uint32]:
    size = strip.height * strip.width
    begin, end = runs.begin - strip.y * strip.width, runs.end - strip.y * strip.width
    borders = np.concatenate([[0], np.stack([begin, end], axis=1).ravel(), [size]])
    values = np.zeros(len(borders) - 1, dtype=np.uint32)
    values[1::2] = numbers[runs.label]
    return np.repeat(values, np.diff(borders)).reshape(strip.height, strip.width)
