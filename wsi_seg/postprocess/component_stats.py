"""Owns whole numbers about objects, collected strip by strip: sums and maxima."""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.postprocess.components import Ints, Runs


class ComponentStat:
    """One whole number for each provisional label; memory holds 8 bytes for each."""

    def __init__(self) -> None:
        self._parts: list[Ints] = []

    def add(self, runs: Runs, amount: Ints) -> None:
        """Sum over the runs of each label."""
        low, count = _range(runs)
        part = np.zeros(count, dtype=np.int64)
        np.add.at(part, runs.label - low, amount)
        self._parts.append(part)

    def highest(self, runs: Runs, amount: Ints | NDArray[np.uint8] | NDArray[np.bool_]) -> None:
        """Maximum over the runs of each label."""
        low, count = _range(runs)
        part = np.full(count, np.iinfo(np.int64).min)
        np.maximum.at(part, runs.label - low, amount.astype(np.int64))
        self._parts.append(part)

    def append(self, values: Ints | NDArray[np.uint8]) -> None:
        """Take the values of a strip's labels as they are."""
        self._parts.append(values.astype(np.int64))

    def values(self) -> Ints:
        """Values of all labels."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self._parts])

    def of(self, objects: Ints, *, highest: bool = False) -> Ints:
        """Sum, or maximum, over the labels of each object."""
        count = int(objects.max()) + 1 if len(objects) else 0
        total = np.full(count, np.iinfo(np.int64).min if highest else 0)
        (np.maximum if highest else np.add).at(total, objects, self.values())
        return total


def _range(runs: Runs) -> tuple[int, int]:
    """Lowest label of a strip and their number; a strip's labels follow each other."""
    if not len(runs.label):
        return 0, 0
    low = int(runs.label.min())
    return low, int(runs.label.max()) - low + 1
