"""Owns linking the objects of neighbouring slices to objects of volumes.

Slices are processed in z order. Memory holds two of them, and a few numbers for each object of a
slice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsi_seg.postprocess.components import ConnectedComponents, Ints, Runs, over_runs, overlapping
from wsi_seg.postprocess.strips import Strip
from wsi_seg.reading.slices import SLICE_NAME

Floats = NDArray[np.float64]


def slices_by_volume(names: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    """Return z and name of the slices of each volume, in z order; other names are ignored."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if match := SLICE_NAME.fullmatch(name):
            found.setdefault(match["volume"], []).append((int(match["z"]), name))
    return {volume: sorted(slices) for volume, slices in sorted(found.items())}


@dataclass(frozen=True, slots=True, eq=False)
class VolumeObjects:
    """Objects of one volume, one array per property.

    Parameters
    ----------
    value
        Class ids, ``(n,)`` int64.
    centre
        Mean position of the pixels, ``(n, 3)`` float64: x and y in pixels of the prediction from
        the corner, z in slices.
    px
        Numbers of pixels, ``(n,)`` int64.
    slices
        Numbers of slices, ``(n,)`` int64.
    mean_probability, max_probability
        Probabilities over the pixels, ``(n,)`` float64, 0 to 1.
    """

    value: Ints
    centre: Floats
    px: Ints
    slices: Ints
    mean_probability: Floats
    max_probability: Floats

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class _Slice:
    """Runs of one slice, and the object of each, numbered over all slices."""

    z: int
    runs: Runs
    number: Ints


def link_slices(slices: Iterable[tuple[int, Sequence[Strip]]]) -> VolumeObjects:
    """Link the objects of slices to objects of a volume.

    Objects of one class are linked if they share a pixel (x, y) in slices with consecutive z.

    Parameters
    ----------
    slices
        z and strips of each slice, ascending; a gap in z splits an object.
    """
    joins: list[Ints] = []
    rows: list[Ints] = []
    before: _Slice | None = None
    count = 0
    for z, strips in slices:
        here, sums = _measure_slice(z, strips, count)
        count += len(sums)
        rows.append(sums)
        if before is not None and before.z == z - 1:
            a, b = _touching(before.runs, here.runs)
            joins.append(np.stack([before.number[a], here.number[b]], axis=1))
        before = here
    return _join(np.concatenate([np.empty((0, 7), np.int64), *rows]), joins)


# Columns of the sums: class id, pixels; sums of x, y, z and probability; maximum probability.
def _measure_slice(z: int, strips: Sequence[Strip], first: int) -> tuple[_Slice, Ints]:
    components = ConnectedComponents()
    parts = []
    for strip in strips:
        runs = components.add(strip.y, strip.ids)
        width = strip.ids.shape[1]
        begin, end = runs.begin - strip.y * width, runs.end - strip.y * width
        total = over_runs(np.add, strip.probability, begin, end)
        highest = over_runs(np.maximum, strip.probability, begin, end)
        y, x = np.divmod(runs.begin, width)
        sum_x = runs.length * (2 * x + runs.length - 1) // 2
        parts.append((runs, total, highest, sum_x, runs.length * y))
    of_label = components.objects()
    runs = _concatenate([part[0] for part in parts])
    number = of_label[runs.label] if len(runs.label) else runs.label
    count = int(number.max()) + 1 if len(number) else 0
    sums = np.zeros((count, 7), dtype=np.int64)
    sums[number, 0] = runs.value
    columns = [np.concatenate([part[n] for part in parts]) for n in range(1, 5)]
    for index, column in ((1, runs.length), (2, columns[2]), (3, columns[3]), (5, columns[0])):
        np.add.at(sums[:, index], number, column)
    sums[:, 4] = sums[:, 1] * z
    np.maximum.at(sums[:, 6], number, columns[1])
    return _Slice(z, runs, number + first), sums


def _concatenate(parts: Sequence[Runs]) -> Runs:
    return Runs(
        np.concatenate([part.begin for part in parts]),
        np.concatenate([part.end for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.shared for part in parts]),
    )


def _touching(a: Runs, b: Runs) -> tuple[Ints, Ints]:
    """Return the pairs of runs of one class in two slices that share a pixel."""
    upper, lower = overlapping(a.begin, a.end, b.begin, b.end)
    same = a.value[upper] == b.value[lower]
    return upper[same], lower[same]


def _join(sums: Ints, joins: Sequence[Ints]) -> VolumeObjects:
    count = len(sums)
    pairs = np.concatenate([np.empty((0, 2), np.int64), *joins])
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (count, count))
    groups, group = connected_components(graph, directed=False) if count else (0, pairs[:, 0])
    total = np.zeros((groups, 7), dtype=np.int64)
    np.add.at(total, group, sums)
    value, highest = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    value[group] = sums[:, 0]
    np.maximum.at(highest, group, sums[:, 6])
    px = total[:, 1]
    # An object may have several parts in one slice.
    planes = np.unique(np.stack([group, sums[:, 4] // np.maximum(sums[:, 1], 1)], axis=1), axis=0)
    return VolumeObjects(
        value=value,
        # x and y are relative to pixel corners, z to slice centres.
        centre=total[:, 2:5] / np.maximum(px, 1)[:, None] + (0.5, 0.5, 0.0),
        px=px,
        slices=np.bincount(planes[:, 0], minlength=groups),
        mean_probability=total[:, 5] / np.maximum(px, 1) / 255,
        max_probability=highest / 255,
    )
