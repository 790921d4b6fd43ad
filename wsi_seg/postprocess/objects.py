"""Owns measuring the objects of a label map: position, size, shape, probability, class.

All sums are integers, so results do not depend on the height of strips. Memory holds one strip, and
about a hundred bytes per object.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import ClassTable
from wsi_seg.postprocess.components import ConnectedComponents, Ints, Runs, over_runs
from wsi_seg.postprocess.strips import Source, Strip

Floats = NDArray[np.float64]

# Sums up to this fit int64, even though the compared sum is a rounded float.
_MAX_SUM = 2.0**62
# Number of objects whose moments are computed as Python integers at a time.
_BATCH = 1 << 16


@dataclass(frozen=True, slots=True)
class Scale:
    """Pixel size of a label map.

    Parameters
    ----------
    downsample
        Level-0 pixels per pixel of the label map.
    mpp
        um per pixel of the label map; None measures in level-0 pixels.
    """

    downsample: float
    mpp: float | None

    @property
    def unit(self) -> float:
        """Length of a pixel in um, or in level-0 pixels if mpp is unknown."""
        return self.downsample if self.mpp is None else self.mpp


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """Measurements of objects in raster order of their first pixels, one ``(n,)`` array each.

    Parameters
    ----------
    id
        1, 2, 3 ...
    class_name
        Name of the class.
    y, x
        Centroid in level-0 pixels.
    top, left, bottom, right
        Bounding box in level-0 pixels, half open.
    area
        Area in um², or in px² of level 0 if mpp is unknown.
    perimeter
        Length of the outline and of holes in um, or in level-0 pixels: Crofton's formula in two
        directions, pi / 4 of the length along pixel borders; unbiased over all orientations.
    eccentricity
        Eccentricity of the ellipse with the same second moments: 0 for a disc, towards 1 for a
        line.
    mean_probability, max_probability
        0 to 1; nan if only class ids were saved.
    """

    id: Ints
    class_name: NDArray[np.str_]
    y: Floats
    x: Floats
    top: Floats
    left: Floats
    bottom: Floats
    right: Floats
    area: Floats
    perimeter: Floats
    eccentricity: Floats
    mean_probability: Floats
    max_probability: Floats

    def __len__(self) -> int:
        return len(self.id)

    def without_probabilities(self) -> "ObjectTable":
        """Return a copy whose probabilities are nan."""
        unknown = np.full(len(self), np.nan)
        return replace(self, mean_probability=unknown, max_probability=unknown)


def joined_tables(tables: Sequence[ObjectTable]) -> ObjectTable:
    """Concatenate tables, such as those of overlapping classes, and renumber the objects."""
    names = [one.name for one in fields(ObjectTable)]
    columns = {name: np.concatenate([getattr(one, name) for one in tables]) for name in names}
    return ObjectTable(**columns | {"id": np.arange(1, len(columns["id"]) + 1)})


def measure(source: Source, classes: ClassTable, scale: Scale) -> ObjectTable:
    """Measure the 4-connected objects of a label map."""
    return measure_placed(source, classes, scale)[0]


def measure_placed(source: Source, classes: ClassTable, scale: Scale) -> tuple[ObjectTable, Ints]:
    """Measure the 4-connected objects of a label map, and return their first pixels, too.

    Returns
    -------
    ObjectTable
        The objects.
    NDArray[np.int64]
        ``(n,)`` flat index ``y * width + x`` of the first pixel of each object, ascending.
    """
    components = ConnectedComponents()
    parts: list[_Sums] = []
    for strip in source():
        runs = components.add(strip.y, strip.ids)
        if len(runs.begin):
            parts.append(_sums_of(strip, runs))
    sums = _Sums.joined(parts, components.objects())
    return _table(sums, classes, scale), sums.first


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Integer sums, minima and maxima over the pixels of labels or objects.

    ``edge`` counts pixel borders, ``first`` is the flat index of the first pixel.
    """

    first: Ints
    value: Ints
    area: Ints
    edge: Ints
    y: Ints
    x: Ints
    yy: Ints
    xx: Ints
    xy: Ints
    probability: Ints
    top: Ints
    left: Ints
    bottom: Ints
    right: Ints
    highest: Ints

    @classmethod
    def grouped(cls, columns: "dict[str, Ints]", group: Ints, count: int) -> "_Sums":
        """Reduce rows to ``count`` groups; columns may be arrays of Python integers."""
        done: dict[str, Ints] = {}
        for name, column in columns.items():
            if name in _LOWEST:
                total = np.full(count, np.iinfo(np.int64).max)
                np.minimum.at(total, group, column)
            else:
                total = np.zeros(count, dtype=column.dtype)
                (np.maximum if name in _HIGHEST else np.add).at(total, group, column)
            done[name] = total
        return cls(**done)

    @classmethod
    def joined(cls, parts: "list[_Sums]", objects: Ints) -> "_Sums":
        """Reduce the labels of all strips to objects.

        Moments of gigapixel slides that may overflow int64 become Python integers.
        """
        columns = {}
        for name in cls.__dataclass_fields__:
            arrays = [np.empty(0, dtype=np.int64), *(getattr(part, name) for part in parts)]
            column = np.concatenate(arrays)
            large = name in _MOMENTS and float(column.sum(dtype=np.float64)) >= _MAX_SUM
            columns[name] = column.astype(object) if large else column
        return cls.grouped(columns, objects, int(objects.max()) + 1 if len(objects) else 0)


_LOWEST = frozenset({"first", "top", "left"})
_HIGHEST = frozenset({"bottom", "right", "highest", "value"})
_MOMENTS = frozenset({"y", "x", "yy", "xx", "xy"})


def _sums_of(strip: Strip, runs: Runs) -> _Sums:
    width = strip.ids.shape[1]
    y, x = np.divmod(runs.begin, width)
    length = runs.length
    sum_x = length * (2 * x + length - 1) // 2
    begin, end = runs.begin - strip.y * width, runs.end - strip.y * width
    columns = {
        "first": runs.begin,
        "value": runs.value.astype(np.int64),
        "area": length,
        "edge": 2 + 2 * length - 2 * runs.shared,
        "y": length * y,
        "x": sum_x,
        "yy": length * y * y,
        "xx": _squares(x + length) - _squares(x),
        "xy": sum_x * y,
        "probability": over_runs(np.add, strip.probability, begin, end),
        "top": y,
        "left": x,
        "bottom": y + 1,
        "right": x + length,
        "highest": over_runs(np.maximum, strip.probability, begin, end),
    }
    low = int(runs.label.min())
    return _Sums.grouped(columns, runs.label - low, int(runs.label.max()) - low + 1)


def _squares(end: Ints) -> Ints:
    """Return ``0² + 1² + ... + (end - 1)²``."""
    return (end - 1) * end * (2 * end - 1) // 6


def _table(sums: _Sums, classes: ClassTable, scale: Scale) -> ObjectTable:
    names = np.array(["", *classes.names], dtype=np.str_)
    down, unit = scale.downsample, scale.unit
    area = sums.area.astype(np.float64)
    # Indices refer to pixel corners; the centre is half a pixel away.
    y = (sums.y / np.maximum(sums.area, 1)).astype(np.float64) + 0.5
    x = (sums.x / np.maximum(sums.area, 1)).astype(np.float64) + 0.5
    return ObjectTable(
        id=np.arange(1, len(area) + 1),
        class_name=names[np.minimum(sums.value, len(classes))],
        y=y * down,
        x=x * down,
        top=sums.top.astype(np.float64) * down,
        left=sums.left.astype(np.float64) * down,
        bottom=sums.bottom.astype(np.float64) * down,
        right=sums.right.astype(np.float64) * down,
        area=area * unit**2,
        perimeter=sums.edge.astype(np.float64) * (unit * np.pi / 4),
        eccentricity=_eccentricity(sums),
        mean_probability=sums.probability / np.maximum(area, 1) / 255,
        max_probability=sums.highest / 255,
    )


def _eccentricity(sums: _Sums) -> Floats:
    """Return ``sqrt(1 - l2 / l1)`` of the covariance eigenvalues of the pixels; 0 for one pixel."""
    # In batches, because Python integers take much memory.
    rows = [slice(begin, begin + _BATCH) for begin in range(0, len(sums.area), _BATCH)]
    return np.concatenate([np.empty(0), *(_eccentricity_of(sums, some) for some in rows)])


def _eccentricity_of(sums: _Sums, rows: slice) -> Floats:
    count = sums.area[rows].astype(object)
    y, x, yy, xx, xy = (
        column[rows].astype(object) for column in (sums.y, sums.x, sums.yy, sums.xx, sums.xy)
    )
    square = np.maximum(sums.area[rows], 1).astype(object) ** 2
    a = ((count * yy - y**2) / square).astype(np.float64)
    c = ((count * xx - x**2) / square).astype(np.float64)
    b = ((count * xy - x * y) / square).astype(np.float64)
    root = np.hypot((a - c) / 2, b)
    large, small = (a + c) / 2 + root, (a + c) / 2 - root
    large = np.where(large > 0, large, 1)
    result: Floats = np.sqrt(np.clip(1 - small / large, 0, 1)) * (root > 0)
    return result
