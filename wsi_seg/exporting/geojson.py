"""Owns writing GeoJSON that QuPath loads: one annotation per object, holes kept, streamed."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import shapely
from shapely.geometry import Polygon

from wsi_seg.atomic import atomic_path
from wsi_seg.classes import ClassEntry


def write_geojson(path: Path | str, objects: Iterable[tuple[ClassEntry, Polygon]]) -> int:
    """Write objects as a FeatureCollection, whole or not at all.

    Parameters
    ----------
    path
        File to write; gzipped if its name ends with ``.gz``.
    objects
        Class and outline, ``(x, y)`` in level-0 pixels; consumed one by one.

    Returns
    -------
    int
        How many there were.

    Examples
    --------
    >>> write_geojson("slide-1.geojson", outlines(label))  # doctest: +SKIP
    57
    """
    path = Path(path)
    with atomic_path(path) as temporary, _open(temporary, packed=path.suffix == ".gz") as file:
        return _write(file, objects)


def _open(path: Path, *, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "wt", encoding="utf-8")
    return path.open("w", encoding="utf-8")


def _write(file: IO[str], objects: Iterable[tuple[ClassEntry, Polygon]]) -> int:
    count = 0
    file.write('{"type": "FeatureCollection", "features": [')
    for entry, polygon in objects:
        file.write(",\n" if count else "\n")
        file.write(json.dumps(_feature(entry, polygon)))
        count += 1
    file.write("\n]}\n")
    return count


def _feature(entry: ClassEntry, polygon: Polygon) -> dict[str, object]:
    rings = [polygon.exterior, *polygon.interiors]
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [shapely.get_coordinates(ring).round(4).tolist() for ring in rings],
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": entry.name, "color": list(entry.rgb)},
        },
    }
