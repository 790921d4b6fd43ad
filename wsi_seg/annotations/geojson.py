"""Owns reading GeoJSON: collections (QuPath's export), bare lists (HuBMAP's form), features."""

from collections.abc import Mapping
from pathlib import Path

from shapely.geometry import GeometryCollection, MultiPolygon
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import Annotations, Collector, polygon, require_class
from wsi_seg.errors import AnnotationError


def is_geojson(document: object) -> bool:
    """Whether parsed JSON looks like GeoJSON features."""
    if isinstance(document, list):
        return all(isinstance(f, dict) and "geometry" in f for f in document)
    return isinstance(document, dict) and document.get("type") in (
        "FeatureCollection",
        "Feature",
        "GeometryCollection",
    )


def read_geojson(path: Path, document: object, *, default_class: str | None) -> Annotations:
    """Read GeoJSON features.

    Parameters
    ----------
    path
        The file, for messages.
    document
        Its parsed JSON.
    default_class
        Class of features that name none; None refuses them.
    """
    features = document
    if isinstance(document, dict):
        crs = document.get("crs")
        if crs is not None:
            raise AnnotationError(
                f"{path}: got a coordinate reference system ({str(crs)[:60]}); expected pixels of "
                "level 0, which has none"
            )
        features = document.get("features", [document])
    if not isinstance(features, list):
        raise AnnotationError(f"{path}: got {type(features).__name__} as features; expected a list")
    collector = Collector(path)
    for number, feature in enumerate(features):
        name = f"feature {number}"
        if not isinstance(feature, dict):
            raise AnnotationError(f"{path}: {name} is {type(feature).__name__}; expected an object")
        geometry = feature.get("geometry")
        if geometry is None:
            collector.repairs.append(f"{name}: it has no geometry, left out")
            continue
        class_name = require_class(path, name, _class_of(feature) or default_class)
        area = _geometry(path, name, geometry)
        weight = _weight_of(path, name, feature)
        collector.add(name, area, class_name, _source_of(feature), weight)
    return collector.result()


def _properties(feature: Mapping[str, object]) -> Mapping[str, object]:
    found = feature.get("properties")
    return found if isinstance(found, dict) else {}


def _class_of(feature: Mapping[str, object]) -> str | None:
    """Class as QuPath writes it, or under the names other programs use."""
    properties = _properties(feature)
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        first = names[0] if isinstance(names, list) and names else None
        classification = classification.get("name") or first
    for value in (classification, properties.get("class"), properties.get("label")):
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


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
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return GeometryCollection()  # no area: the collector leaves it out and says so
    raise AnnotationError(f"{path}: {name}: got geometry {str(kind)[:40]!r}; expected a Polygon")
