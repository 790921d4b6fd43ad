"""Owns reading csv files of spheres in mm (LUNA16's form): discs on the slices of volumes."""

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

# A sphere thinner than a slice still gets a disc of this radius on the nearest one.
_LEAST_RADIUS_PX = 0.6


def is_luna16(header: Sequence[str]) -> bool:
    """Whether a csv file with these columns holds spheres."""
    return set(_COLUMNS) <= {plain(column) for column in header}


def read_luna16(
    path: Path, table: Table, volumes: Mapping[str, VolumeGrid], *, default_class: str | None
) -> AnnotationSets:
    """Read the spheres of the volumes that are known, as discs on their slices.

    On slice ``k`` a sphere of radius ``r`` is a disc of radius ``sqrt(r^2 - dz^2)``, dz being the
    slice's distance from its centre; the nearest slice always gets one.

    Parameters
    ----------
    path
        The file, for messages.
    table
        A row for each sphere.
    volumes
        Grids by the names that the file calls series; others are passed over.
    default_class
        Class of the spheres; the format names none.

    Returns
    -------
    AnnotationSets
        By slide, ``<series>_z0012``.
    """
    header = [plain(name) for name in table.header]
    rows = [(line, dict(zip(header, cells, strict=True))) for line, cells in table.rows]
    known, strangers = SlideNames(volumes).assign(path, (row["seriesuid"] for _, row in rows))
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
                f"{path}: line {line}: centre on slice {nearest}; the volume has {grid.size[2]}"
            )
        first, last = int(np.ceil(z - radius / deep)), int(np.floor(z + radius / deep))
        slices = {nearest, *range(first, last + 1)}
        for k in sorted(slices & set(range(grid.size[2]))):
            disc = max(radius**2 - ((k - z) * deep) ** 2, 0.0) ** 0.5
            outline = scale(
                Point(0, 0).buffer(1, quad_segs=16),
                xfact=max(disc / wide, _LEAST_RADIUS_PX),
                yfact=max(disc / tall, _LEAST_RADIUS_PX),
                origin=(0, 0),
            )
            slide = f"{series}_z{k:04}"
            collector = collectors.setdefault(slide, Collector(path))
            # Voxel coordinates name centres, pixel coordinates corners.
            place = translate(outline, column + 0.5, y + 0.5)
            collector.add(f"line {line}", place, class_name, "expert", lesion=lesion)
    found = {slide: collector.result() for slide, collector in collectors.items()}
    return AnnotationSets(found, tuple(strangers))


def _parse(path: Path, line: int, row: Mapping[str, str]) -> list[float]:
    try:
        numbers = [float(row[name]) for name in _COLUMNS[1:]]
    except ValueError as error:
        raise AnnotationError(f"{path}: line {line}: {error}; expected numbers in mm") from error
    if not np.isfinite(numbers).all() or numbers[3] <= 0:
        raise AnnotationError(
            f"{path}: line {line}: got {numbers}; expected finite places and a diameter above 0"
        )
    return numbers
