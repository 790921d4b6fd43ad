"""Owns pixel counts from which rules of any thresholds and minimum area can be scored."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.evaluation.pairing import PredictionTruthStrip
from wsi_seg.postprocess.components import ConnectedComponents, Ints, over_runs
from wsi_seg.postprocess.rule import Rule, least_above

_STATES = 3  # right, wrong, ignored


class ImageCounts:
    """Pixel counts of each class by probability and state, for rules per image."""

    def __init__(self, size: int) -> None:
        self._px = np.zeros((size, 256, _STATES), dtype=np.int64)
        self.true = np.zeros(size, dtype=np.int64)

    def add(self, strip: PredictionTruthStrip) -> None:
        """Count a strip; strips come from top to bottom."""
        key = strip.found.astype(np.int32) * 256 + strip.probability
        key *= _STATES
        key += _state(strip)
        counted = np.bincount(key.ravel(), minlength=self._px.size)
        self._px += counted.reshape(self._px.shape)
        self.true += np.bincount(strip.true.ravel(), minlength=256)[: len(self.true)]

    @property
    def scored(self) -> int:
        """Pixels that count."""
        return int(self._px[:, :, :2].sum())

    def of(self, levels: tuple[float, float], rule: Rule, px_area: float) -> tuple[Ints, Ints]:
        """Count the right and the scored pixels that a rule keeps, ``(classes + 1,)`` each."""
        high, low = map(least_above, levels)
        kept = ~(self._px[:, high:].sum(axis=(1, 2)) * px_area < rule.min_area)
        px = self._px[:, low:].sum(axis=1)
        return px[:, 0] * kept, px[:, :2].sum(axis=1) * kept


class ObjectCounts:
    """Pixel counts of each object above a low threshold, for rules per object."""

    def __init__(self, low: float, highs: Sequence[float]) -> None:
        self._least = least_above(low)
        self._highs = {high: n for n, high in enumerate(highs)}
        self._components = ConnectedComponents()
        self._rows: list[Ints] = []
        self._sums = np.empty((0, 0), dtype=np.int64)
        self._value = np.empty(0, dtype=np.int64)
        self._size = 0

    def add(self, strip: PredictionTruthStrip) -> None:
        """Count a strip; strips come from top to bottom."""
        ids = strip.found * (strip.probability >= self._least)
        runs = self._components.add(strip.y, ids)
        offset = strip.y * ids.shape[1]
        begin, end = runs.begin - offset, runs.end - offset
        state = _state(strip)
        masks = [state == 0, state < 2]
        masks += [strip.probability >= least_above(high) for high in self._highs]
        columns = [over_runs(np.add, mask, begin, end) for mask in masks]
        table = np.stack([runs.label, runs.value.astype(np.int64), *columns], axis=1)
        self._rows.append(_by_label(table))

    def close(self, size: int) -> None:
        """Merge the provisional labels, after all strips were added."""
        rows = np.concatenate([np.empty((0, 4 + len(self._highs)), dtype=np.int64), *self._rows])
        groups = self._components.objects()
        count = int(groups.max()) + 1 if len(groups) else 0
        self._sums = np.zeros((count, rows.shape[1] - 2), dtype=np.int64)
        np.add.at(self._sums, groups[rows[:, 0]], rows[:, 2:])
        self._value = np.zeros(count, dtype=np.int64)
        self._value[groups[rows[:, 0]]] = rows[:, 1]
        self._size, self._rows = size, []

    def of(self, levels: tuple[float, float], rule: Rule, px_area: float) -> tuple[Ints, Ints]:
        """Count the right and the scored pixels that a rule keeps, ``(classes + 1,)`` each."""
        kept = ~(self._sums[:, 2 + self._highs[levels[0]]] * px_area < rule.min_area)
        right, scored = np.zeros(self._size, dtype=np.int64), np.zeros(self._size, dtype=np.int64)
        np.add.at(right, self._value[kept], self._sums[kept, 0])
        np.add.at(scored, self._value[kept], self._sums[kept, 1])
        return right, scored


def _by_label(table: Ints) -> Ints:
    """Sum rows ``(label, value, counts...)`` of a strip with equal labels."""
    labels, first, inverse = np.unique(table[:, 0], return_index=True, return_inverse=True)
    joined = np.zeros((len(labels), table.shape[1]), dtype=np.int64)
    np.add.at(joined, inverse, table)
    joined[:, :2] = table[first, :2]
    return joined


def _state(strip: PredictionTruthStrip) -> NDArray[np.uint8]:
    """Return 0 for right pixels, 1 for wrong ones, 2 for ignored ones, ``(h, W)`` uint8."""
    state: NDArray[np.uint8] = (strip.found != strip.true).astype(np.uint8)
    state[~strip.valid] = 2
    return state
