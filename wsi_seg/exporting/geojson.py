"""Owns streaming objects to GeoJSON for QuPath, with class, colour and measurements."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import shapely

from wsi_seg.choices import ObjectType
from wsi_seg.exporting.outlines import Batch, Outlines
from wsi_seg.files.atomic import atomic_path

# QuPath slows down with more annotations than this; detections stay fast.
MAX_ANNOTATIONS = 1000

_GZIP_LEVEL = 4  # compression is the bottleneck of writing

# Names as QuPath spells its own measurements, and the number of decimals.
_MEASUREMENTS = {
    "area": ("Area {unit}^2", 2),
    "perimeter": ("Perimeter {unit}", 2),
    "circularity": ("Circularity", 4),
    "solidity": ("Solidity", 4),
    "eccentricity": ("Eccentricity", 4),
    "mean_probability": ("Mean probability", 4),
    "max_probability": ("Max probability", 4),
}


def write_geojson(path: Path | str, objects: Outlines, *, kind: ObjectType = "auto") -> int:
    """Write objects as a FeatureCollection, atomically.

    Parameters
    ----------
    path
        File to write; gzipped if its name ends with ``.gz``.
    objects
        Objects of one slide; see `wsi_seg.outlines`.
    kind
        Object type in QuPath; ``auto`` writes detections if there are more than 1,000.

    Returns
    -------
    int
        Number of objects.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> write_geojson("a.geojson", outlines(label))  # doctest: +SKIP
    12
    """
    path = Path(path)
    type_name = object_type(kind, len(objects))
    with atomic_path(path) as temporary, _open(temporary, packed=path.suffix == ".gz") as file:
        before = '{"type": "FeatureCollection", "features": [\n'
        for batch in objects.batches():
            file.write(before)
            file.write(",\n".join(_features(batch, objects, type_name)))
            before = ",\n"
        file.write("\n]}\n" if before == ",\n" else before + "]}\n")
    return len(objects)


def object_type(kind: ObjectType, count: int) -> str:
    """Return the ``objectType`` that QuPath expects for a slide of ``count`` objects."""
    if kind == "auto":
        return "detection" if count > MAX_ANNOTATIONS else "annotation"
    return kind.removesuffix("s")


def _open(path: Path, *, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "wt", encoding="utf-8", compresslevel=_GZIP_LEVEL)
    return path.open("w", encoding="utf-8")


def _features(batch: Batch, objects: Outlines, kind: str) -> Iterator[str]:
    """Yield each object as JSON, without measurements that are nan."""
    unit = "px" if objects.label.pyramid.mpp is None else "µm"
    figures = {
        _MEASUREMENTS[name][0].format(unit=unit): values.round(_MEASUREMENTS[name][1]).tolist()
        for name, values in batch.figures.items()
        if not np.isnan(values).any()
    }
    measured = ", ".join(f'"{name}": %s' for name in figures)
    feature = (
        '{"type": "Feature", "id": "%s", "geometry": %s, "properties": '
        f'{{"objectType": "{kind}", "name": "%s %d", '
        f'"classification": %s, "isLocked": false, "measurements": {{{measured}}}}}}}'
    )
    names = {entry.id: json.dumps(entry.name)[1:-1] for entry in objects.classes}
    classes = {
        entry.id: json.dumps({"name": entry.name, "color": list(entry.rgb)})
        for entry in objects.classes
    }
    rows = zip(
        batch.uuid,
        shapely.to_geojson(batch.polygons).tolist(),
        [names[number] for number in batch.class_id.tolist()],
        batch.number.tolist(),
        [classes[number] for number in batch.class_id.tolist()],
        *figures.values(),
        strict=True,
    )
    return (feature % row for row in rows)
