"""Owns whole numbers about objects, collected strip by strip: sums, and the highest of each."""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.postprocess.runs import Ints, Runs


class Tally:
    """One whole number for each piece of an object; memory holds 8 bytes for each."""

    def __init__(self) -> None:
        self._parts: list[Ints] = []

    def add(self, runs: Runs, amount: Ints) -> None:
        """Sum over the runs of each piece."""
        low, count = _range(runs)
        part = np.zeros(count, dtype=np.int64)
        np.add.at(part, runs.piece - low, amount)
        self._parts.append(part)

    def highest(self, runs: Runs, amount: Ints | NDArray[np.uint8] | NDArray[np.bool_]) -> None:
        """Maximum over the runs of each piece."""
        low, count = _range(runs)
        part = np.full(count, np.iinfo(np.int64).min)
        np.maximum.at(part, runs.piece - low, amount.astype(np.int64))
        self._parts.append(part)

    def first(self, values: Ints | NDArray[np.uint8]) -> None:
        """Values of a strip's pieces, as they are."""
        self._parts.append(values.astype(np.int64))

    def firsts(self) -> Ints:
        """Values of all pieces."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self._parts])

    def of(self, objects: Ints, *, highest: bool = False) -> Ints:
        """Sum, or maximum, over the pieces of each object."""
        count = int(objects.max()) + 1 if len(objects) else 0
        total = np.full(count, np.iinfo(np.int64).min if highest else 0)
        (np.maximum if highest else np.add).at(total, objects, self.firsts())
        return total


def _range(runs: Runs) -> tuple[int, int]:
    """Lowest piece of a strip and their number; a strip's pieces follow each other."""
    if not len(runs.piece):
        return 0, 0
    low = int(runs.piece.min())
    return low, int(runs.piece.max()) - low + 1
