"""Owns matching predicted objects with true ones, and the scores F1, PQ and AP.

Objects are 4-connected components of a class. A pair matches if its IoU is above a threshold; with
thresholds of at least 0.5, no object can match two others, so no assignment is needed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import ClassTable
from wsi_seg.evaluation.pairing import PredictionTruthStrip
from wsi_seg.postprocess.component_stats import ComponentStat
from wsi_seg.postprocess.components import ConnectedComponents, Ints, Runs, overlapping

# IoU thresholds of the average precision of the 2018 Data Science Bowl.
_AP_THRESHOLDS = np.arange(50, 100, 5) / 100

_MATCH = 0.5


@dataclass(frozen=True, slots=True)
class ObjectCounts:
    """Object counts of one class on one or more slides.

    Parameters
    ----------
    ious
        IoU of each matching pair, all above 0.5.
    found, true
        Number of predicted objects, and of true objects.
    """

    ious: tuple[float, ...]
    found: int
    true: int

    @property
    def precision(self) -> float:
        """Fraction of predicted objects that match; 1 without predicted objects."""
        return len(self.ious) / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Fraction of true objects that match; 1 without true objects."""
        return len(self.ious) / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """``2 tp / (found + true)``; 1 without objects."""
        total = self.found + self.true
        return 2 * len(self.ious) / total if total else 1.0

    @property
    def pq(self) -> float:
        """Panoptic quality (Kirillov et al., 2019): mean IoU of pairs times F1; 1 if empty."""
        total = self.found + self.true
        return 2 * sum(self.ious) / total if total else 1.0

    @property
    def ap(self) -> float:
        """Mean of ``tp / (tp + fp + fn)`` over IoU above 0.5, 0.55 ... 0.95; 1 without objects.

        Score of one image in the 2018 Data Science Bowl.
        """
        hits = (np.array(self.ious)[:, None] > _AP_THRESHOLDS).sum(axis=0)
        union = self.found + self.true - hits
        return float(np.mean(hits / np.maximum(union, 1))) if union.any() else 1.0

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        return ObjectCounts(
            self.ious + other.ious, self.found + other.found, self.true + other.true
        )


class Matcher:
    """Matches objects strip by strip; memory holds a few integers per object."""

    def __init__(self) -> None:
        self._found, self._true = _Side(), _Side()
        self._pairs: list[tuple[Ints, Ints, Ints]] = []

    def add(self, strip: PredictionTruthStrip) -> None:
        """Add the next strip; pixels to ignore belong to no object."""
        found = self._found.add(strip.y, np.where(strip.valid, strip.found, 0).astype(np.uint8))
        true = self._true.add(strip.y, np.where(strip.valid, strip.true, 0).astype(np.uint8))
        upper, lower, shared = _shared(found, true)
        same = found.value[upper] == true.value[lower]
        a, b = found.label[upper[same]], true.label[lower[same]]
        # Reduce pairs of runs to pairs of labels, which are far fewer.
        keys, group = np.unique(a << 32 | b, return_inverse=True)
        both = np.bincount(group, weights=shared[same], minlength=len(keys)).astype(np.int64)
        self._pairs.append((keys >> 32, keys & 0xFFFF_FFFF, both))

    def counts(self, classes: ClassTable) -> dict[str, ObjectCounts]:
        """Return the object counts by class name, after all strips were added."""
        found, true = self._found.objects(), self._true.objects()
        a, b, shared = (np.concatenate(column) for column in zip(*self._pairs, strict=True))
        a, b = found.of_label[a], true.of_label[b]
        keys, group = np.unique(a * (len(true.area) + 1) + b, return_inverse=True)
        both = np.bincount(group, weights=shared, minlength=len(keys))
        a, b = keys // (len(true.area) + 1), keys % (len(true.area) + 1)
        iou = both / (found.area[a] + true.area[b] - both)
        matched = iou > _MATCH
        return {
            entry.name: ObjectCounts(
                tuple(iou[matched & (found.value[a] == entry.id)].tolist()),
                int((found.value == entry.id).sum()),
                int((true.value == entry.id).sum()),
            )
            for entry in classes
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """Object of each provisional label; area and class id of each object."""

    of_label: Ints
    area: Ints
    value: Ints


class _Side:
    """Objects of one of the two label maps."""

    def __init__(self) -> None:
        self._components = ConnectedComponents()
        self._area, self._value = ComponentStat(), ComponentStat()

    def add(self, y: int, ids: NDArray[np.uint8]) -> Runs:
        runs = self._components.add(y, ids)
        self._area.add(runs, runs.length)
        self._value.highest(runs, runs.value)
        return runs

    def objects(self) -> _Objects:
        of_label = self._components.objects()
        return _Objects(of_label, self._area.of(of_label), self._value.of(of_label, highest=True))


def _shared(a: Runs, b: Runs) -> tuple[Ints, Ints, Ints]:
    """Return pairs of overlapping runs of two label maps, and their numbers of shared pixels."""
    left, right = overlapping(a.begin, a.end, b.begin, b.end)
    shared = np.minimum(a.end[left], b.end[right]) - np.maximum(a.begin[left], b.begin[right])
    return left, right, shared
