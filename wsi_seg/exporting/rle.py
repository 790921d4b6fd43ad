"""Owns writing run-length encoded masks as csv, one row for each slide and class.

Runs are column-major, so masks are read in bands of columns, and memory never holds a whole mask.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from wsi_seg.annotations.rle import Runs, find_runs, write_runs
from wsi_seg.choices import Dialect
from wsi_seg.files.atomic import atomic_path
from wsi_seg.geometry import Region
from wsi_seg.store import Multiscale

HEADER = ("image_id", "class", "height", "width", "rle")

_BAND_PX = 512


def write_rle_csv(
    path: Path, labels: Iterable[tuple[str, Multiscale]], *, dialect: Dialect
) -> None:
    """Write the masks of all classes of several slides to one file, atomically.

    Parameters
    ----------
    path
        File to write.
    labels
        Name and label map of each slide; runs count pixels of the label map's level 0.
    dialect
        Run-length encoding; see `annotations.rle`.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for name, label in labels:
            extent = label.pyramid.extent
            for class_name, runs in encode_label(label):
                text = write_runs(runs, dialect=dialect)
                writer.writerow((name, class_name, extent.height, extent.width, text))


def encode_label(label: Multiscale) -> Iterator[tuple[str, Runs]]:
    """Yield the name and the column-major runs ``(n, 2)`` of each class of a label map."""
    classes = label.classes
    extent = label.pyramid.extent
    parts: dict[int, list[Runs]] = {entry.id: [] for entry in classes}
    for x in range(0, extent.width, _BAND_PX):
        width = min(_BAND_PX, extent.width - x)
        region = Region(level=0, y=0, x=x, height=extent.height, width=width)
        ids = label.read(region, cached=False)
        for number, found in parts.items():
            found.append(find_runs(ids == number) + x * extent.height)
    for entry in classes:
        yield entry.name, _merged(np.concatenate(parts[entry.id]))


def _merged(runs: Runs) -> Runs:
    """Merge runs that touch."""
    if not len(runs):
        return runs
    separate = runs[1:, 0] != runs[:-1, 1]
    begins = runs[np.concatenate([[True], separate]), 0]
    ends = runs[np.concatenate([separate, [True]]), 1]
    return np.stack([begins, ends], axis=1)
