"""Owns reading the XML of ASAP: outlines in groups, each group a class."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from shapely.geometry import GeometryCollection
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import Annotations, Collector, polygon, require_class
from wsi_seg.errors import AnnotationError
from wsi_seg.limits import advice, limits

_AREAS = {"Polygon", "Spline", "Rectangle"}
_LONG_ORDER = 10  # digits
_NO_AREAS = {"Dot", "PointSet", "Measurement"}


def is_xml(content: bytes) -> bool:
    """Whether a file's content begins like XML."""
    return content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def read_asap(path: Path, content: bytes, *, default_class: str | None) -> Annotations:
    """Read ASAP's annotations.

    Parameters
    ----------
    path
        The file, for messages.
    content
        Its bytes, XML in UTF-8.
    default_class
        Class of outlines in no group.
    """
    collector = Collector(path)
    for number, element in enumerate(_parse(path, content).iter("Annotation")):
        name = f"annotation {number} ({element.get('Name', '')[:40]})"
        group = element.get("PartOfGroup", "")
        class_name = require_class(path, name, group if group not in {"", "None"} else None
                                   or default_class)  # fmt: skip
        collector.add(name, _geometry(path, name, element), class_name, "expert")
    return collector.result()


def _parse(path: Path, content: bytes) -> ElementTree.Element:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not text in UTF-8; expected ASAP's XML") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        # Entities can make gigabytes of a few lines, or name other files; ASAP writes none.
        raise AnnotationError(f"{path} declares entities; expected plain XML as ASAP writes it")
    if text.count("<") + text.count('="') + text.count("='") > limits().text_values:
        raise AnnotationError(f"{path} has too many elements; {advice('text_values')}")
    try:
        root = ElementTree.fromstring(text)  # without entities nothing can blow up
    except ElementTree.ParseError as error:
        raise AnnotationError(f"{path} is not XML: {error}") from error
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(f"{path}: got XML of {root.tag[:40]!r}; expected ASAP_Annotations")
    return root


def _geometry(path: Path, name: str, element: ElementTree.Element) -> BaseGeometry:
    kind = element.get("Type", "")
    if kind in _NO_AREAS:
        return GeometryCollection()  # the collector leaves it out and says so
    if kind not in _AREAS:
        raise AnnotationError(f"{path}: {name}: got type {kind[:40]!r}; expected a Polygon")
    return polygon(path, name, [list(_vertices(element))])


def _vertices(element: ElementTree.Element) -> Iterator[tuple[str | None, str | None]]:
    """Vertices in the order that the file numbers them; checked by `polygon`."""
    points = list(element.iter("Coordinate"))
    orders = [point.get("Order", "") for point in points]
    if all(order.isdecimal() and len(order) < _LONG_ORDER for order in orders):
        points.sort(key=lambda point: int(point.get("Order", "0")))
    return ((point.get("X"), point.get("Y")) for point in points)
