"""Owns reading GeoJSON: QuPath exports with child objects, and HuBMAP's bare feature lists."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from shapely.geometry import GeometryCollection, MultiPolygon
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import Annotations, Collector, polygon, require_class
from wsi_seg.errors import AnnotationError

_NO_AREAS = {"Point", "MultiPoint", "LineString", "MultiLineString"}
_GEOMETRIES = {"Polygon", "MultiPolygon", "GeometryCollection", *_NO_AREAS}

# Keys under which QuPath and others nest child objects.
_CHILDREN = ("childObjects", "children")
_CLASS = ("classification", "class", "class_name", "className", "label", "category")


def is_geojson(document: object) -> bool:
    """Return whether parsed JSON looks like GeoJSON."""
    if isinstance(document, list):
        return all(is_geojson(inner) for inner in document)
    if not isinstance(document, dict):
        return False
    kind = document.get("type")
    if isinstance(kind, str) and kind in {"FeatureCollection", "Feature", *_GEOMETRIES}:
        return True
    return "geometry" in document


def read_geojson(path: Path, document: object, *, default_class: str | None) -> Annotations:
    """Read GeoJSON: collections, features, geometries, and lists of them.

    Children of an object are drawn over it. The nucleus of a cell is drawn as part of the cell.

    Parameters
    ----------
    path
        The file, for messages.
    document
        The parsed JSON.
    default_class
        Class of features without one; None refuses them.
    """
    collector = Collector(path)
    nuclei = 0
    for number, feature in enumerate(_features(path, document)):
        name = f"feature {number}"
        nuclei += feature.get("nucleusGeometry") is not None
        geometry = feature.get("geometry")
        if geometry is None:
            if not _children(feature):
                collector.repairs.append(f"{name}: it has no geometry, skipped")
            continue
        class_name = require_class(path, name, _class_of(path, name, feature) or default_class)
        area = _geometry(path, name, geometry)
        weight = _weight_of(path, name, feature)
        collector.add(name, area, class_name, _source_of(feature), weight)
    if nuclei:
        collector.repairs.append(f"{nuclei} nuclei are drawn as part of their cells")
    return collector.result()


def _features(path: Path, document: object) -> Iterator[Mapping[str, object]]:
    """Yield all features, each before its children, at any depth."""
    waiting = [document]
    number = 0
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found[::-1]
            continue
        if not isinstance(found, dict):
            raise AnnotationError(
                f"{path}: feature {number} is {type(found).__name__}; expected an object"
            )
        inside = found.get("geometry")
        crs = found.get("crs") or (inside.get("crs") if isinstance(inside, dict) else None)
        if crs is not None:
            raise AnnotationError(
                f"{path}: got a coordinate reference system ({str(crs)[:60]}); expected level-0 "
                "pixels, without one"
            )
        if "features" in found:
            inner = found["features"]
            if not isinstance(inner, list):
                raise AnnotationError(
                    f"{path}: got {type(inner).__name__} as features; expected a list"
                )
            waiting += inner[::-1]
            continue
        number += 1
        yield {"geometry": found} if found.get("type") in _GEOMETRIES else found
        waiting += _children(found)[::-1]


def _children(feature: Mapping[str, object]) -> list[object]:
    return [
        child
        for holder in (feature, _properties(feature))
        for key in _CHILDREN
        if isinstance(inner := holder.get(key), list)
        for child in inner
    ]


def _properties(feature: Mapping[str, object]) -> Mapping[str, object]:
    found = feature.get("properties")
    return found if isinstance(found, dict) else {}


def _class_of(path: Path, name: str, feature: Mapping[str, object]) -> str | None:
    """Return the class, in QuPath's form or under a key that other programs use."""
    properties = _properties(feature)
    for key in _CLASS:
        found = _class_name(properties.get(key))
        if found is None:
            raise AnnotationError(
                f"{path}: {name}: got {key} {str(properties[key])[:60]}; expected the name of a "
                "class"
            )
        if found:
            return found
    return None


def _class_name(value: object) -> str | None:
    """Return a class name in any form, joining lists as QuPath does; None if it is not a name."""
    if isinstance(value, dict):
        return _class_name(value.get("names") or value.get("name"))
    if isinstance(value, list):
        parts = [_class_name(part) for part in value]
        return None if None in parts else ": ".join(part for part in parts if part)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ("" if value is None else None)


def _source_of(feature: Mapping[str, object]) -> str:
    source = _properties(feature).get("source")
    return source if isinstance(source, str) and source else "expert"


def _weight_of(path: Path, name: str, feature: Mapping[str, object]) -> float:
    weight = _properties(feature).get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise AnnotationError(f"{path}: {name}: got weight {weight!r}; expected 0 to 1")
    return float(weight)


def _geometry(path: Path, name: str, value: object) -> BaseGeometry:
    if not isinstance(value, dict):
        raise AnnotationError(f"{path}: {name}: got {type(value).__name__} as its geometry")
    kind, coordinates = value.get("type"), value.get("coordinates")
    if kind == "Polygon":
        return polygon(path, name, coordinates)
    if kind == "MultiPolygon" and isinstance(coordinates, list):
        return MultiPolygon([polygon(path, name, rings) for rings in coordinates])
    members = value.get("geometries")
    if kind == "GeometryCollection" and isinstance(members, list):
        return GeometryCollection([_geometry(path, name, member) for member in members])
    if kind in _NO_AREAS:
        return GeometryCollection()  # no area: the collector skips it and reports that
    raise AnnotationError(f"{path}: {name}: got geometry {str(kind)[:40]!r}; expected a Polygon")
