"""Owns integer statistics of objects, accumulated strip by strip: sums and maxima."""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.postprocess.components import Ints, Runs


class ComponentStat:
    """One int64 statistic per provisional label."""

    def __init__(self) -> None:
        self._parts: list[Ints] = []

    def add(self, runs: Runs, amount: Ints) -> None:
        """Add ``(n,)`` amounts to the labels of runs, as sums."""
        low, count = _range(runs)
        part = np.zeros(count, dtype=np.int64)
        np.add.at(part, runs.label - low, amount)
        self._parts.append(part)

    def highest(self, runs: Runs, amount: Ints | NDArray[np.uint8] | NDArray[np.bool_]) -> None:
        """Take the maximum of ``(n,)`` amounts over the runs of each label."""
        low, count = _range(runs)
        part = np.full(count, np.iinfo(np.int64).min)
        np.maximum.at(part, runs.label - low, amount.astype(np.int64))
        self._parts.append(part)

    def append(self, values: Ints | NDArray[np.uint8]) -> None:
        """Append one value for each label of a strip."""
        self._parts.append(values.astype(np.int64))

    def values(self) -> Ints:
        """Return the statistic of all labels."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self._parts])

    def of(self, objects: Ints, *, highest: bool = False) -> Ints:
        """Sum over the labels of each object, or take their maximum.

        ``objects`` maps each label to its object; see `ConnectedComponents.objects`.
        """
        count = int(objects.max()) + 1 if len(objects) else 0
        total = np.full(count, np.iinfo(np.int64).min if highest else 0)
        (np.maximum if highest else np.add).at(total, objects, self.values())
        return total


def _range(runs: Runs) -> tuple[int, int]:
    """Return the lowest label of a strip and the number of labels, which are consecutive."""
    if not len(runs.label):
        return 0, 0
    low = int(runs.label.min())
    return low, int(runs.label.max()) - low + 1
