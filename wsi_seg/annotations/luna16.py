"""Owns reading csv files of spheres in mm (LUNA16 format) as discs on the slices of volumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from shapely.affinity import scale, translate
from shapely.geometry import Point

from wsi_seg.annotations.model import AnnotationSets, Collector, Lesion, require_class
from wsi_seg.annotations.names import SlideNames
from wsi_seg.annotations.table import Table, plain
from wsi_seg.errors import AnnotationError
from wsi_seg.slides.volume import VolumeGrid

_COLUMNS = ("seriesuid", "coordx", "coordy", "coordz", "diametermm")

# Radius of the disc on the nearest slice for a sphere that is thinner than a slice.
_MIN_RADIUS_PX = 0.6


def is_luna16(header: Sequence[str]) -> bool:
    """Return whether a csv file with these columns holds spheres."""
    return set(_COLUMNS) <= {plain(column) for column in header}


def read_luna16(
    path: Path, table: Table, volumes: Mapping[str, VolumeGrid], *, default_class: str | None
) -> AnnotationSets:
    """Read the spheres of known volumes as discs on their slices.

    On slice ``k``, a sphere of radius ``r`` is a disc of radius ``sqrt(r^2 - dz^2)``, where dz is
    the distance of the slice from the centre; the nearest slice always gets a disc.

    Parameters
    ----------
    path
        The file, for messages.
    table
        One row per sphere.
    volumes
        Grids by series name; rows of other series are skipped.
    default_class
        Class of the spheres; the format has no classes.

    Returns
    -------
    AnnotationSets
        Annotations by slide name, ``<series>_z0012``.
    """
    header = [plain(name) for name in table.header]
    rows = [(line, dict(zip(header, cells, strict=True))) for line, cells in table.rows]
    known, unmatched = SlideNames(volumes).assign(path, (row["seriesuid"] for _, row in rows))
    collectors: dict[str, Collector] = {}
    for line, row in rows:
        numbers = _parse(path, line, row)
        series = known.get(row["seriesuid"])
        if series is None:
            continue
        grid = volumes[series]
        class_name = require_class(path, f"line {line}", default_class)
        column, y, z = grid.voxels(np.array([numbers[:3]]))[0].tolist()
        radius = numbers[3] / 2
        lesion = Lesion(f"{series} at {', '.join(f'{n:.6g}' for n in numbers[:3])}", numbers[3])
        tall, wide, deep = grid.spacing[1], grid.spacing[0], grid.spacing[2]
        nearest = round(z)
        if not 0 <= nearest < grid.size[2]:
            raise AnnotationError(
                f"{path}: line {line}: got a centre on slice {nearest}; expected 0 to "
                f"{grid.size[2] - 1}, the slices of the volume"
            )
        first, last = int(np.ceil(z - radius / deep)), int(np.floor(z + radius / deep))
        slices = {nearest, *range(first, last + 1)}
        for k in sorted(slices & set(range(grid.size[2]))):
            disc = max(radius**2 - ((k - z) * deep) ** 2, 0.0) ** 0.5
            outline = scale(
                Point(0, 0).buffer(1, quad_segs=16),
                xfact=max(disc / wide, _MIN_RADIUS_PX),
                yfact=max(disc / tall, _MIN_RADIUS_PX),
                origin=(0, 0),
            )
            slide = f"{series}_z{k:04}"
            collector = collectors.setdefault(slide, Collector(path))
            # Voxel coordinates refer to centres, pixel coordinates to corners.
            circle = translate(outline, column + 0.5, y + 0.5)
            collector.add(f"line {line}", circle, class_name, "expert", lesion=lesion)
    found = {slide: collector.result() for slide, collector in collectors.items()}
    return AnnotationSets(found, tuple(unmatched))


def _parse(path: Path, line: int, row: Mapping[str, str]) -> list[float]:
    try:
        numbers = [float(row[name]) for name in _COLUMNS[1:]]
    except ValueError as error:
        raise AnnotationError(f"{path}: line {line}: {error}; expected numbers in mm") from error
    if not np.isfinite(numbers).all() or numbers[3] <= 0:
        raise AnnotationError(
            f"{path}: line {line}: got {numbers}; expected finite coordinates, a diameter above 0"
        )
    return numbers
