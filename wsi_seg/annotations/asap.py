"""Owns reading ASAP XML: outlines in groups, where each group is a class."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import shapely
from shapely.geometry import GeometryCollection
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import (
    Annotations,
    Collector,
    polygon,
    repair,
    require_class,
    require_repairable,
)
from wsi_seg.errors import AnnotationError
from wsi_seg.limits import advice, limits

_AREAS = {"Polygon", "Spline", "Rectangle"}
_MAX_ORDER_DIGITS = 10
_NO_AREAS = {"Dot", "PointSet", "Measurement"}

# In CAMELYON16, outlines of group _2 are holes in those of _0 and _1.
_EXCLUDING = re.compile("_2|exclu(sions?|de|ded|ding)", re.IGNORECASE)

_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"<\x00": "utf-16-le",
    b"\x00<": "utf-16-be",
}
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_READ = re.compile("ascii|utf-(8|16|32)|iso8859|cp125|gb|big5|shift_jis|euc_|koi8|mac")


def is_xml(content: bytes) -> bool:
    """Return whether a file's content starts like XML, in any encoding."""
    return content[:64].lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n").startswith(b"<")


def read_asap(path: Path, content: bytes, *, default_class: str | None) -> Annotations:
    """Read ASAP annotations.

    Outlines in exclusion groups, such as CAMELYON16's ``_2``, are cut out of all others, whether
    that class is kept or not.

    Parameters
    ----------
    path
        The file, for messages.
    content
        Its bytes: XML in the encoding that it declares.
    default_class
        Class of outlines without a group.
    """
    collector = Collector(path)
    root = _parse(path, content)
    excluding = _excluding(root)
    outlines = []
    for number, element in enumerate(root.iter("Annotation")):
        name = f"annotation {number} ({element.get('Name', '')[:40]})"
        group = element.get("PartOfGroup", "")
        own = group if group not in {"", "None"} else default_class
        class_name = require_class(path, name, own)
        outlines.append((name, _geometry(path, name, element), class_name))
    cut = [_cut(path, name, area) for name, area, group in outlines if group in excluding]
    holes = shapely.union_all(cut)
    for name, area, group in outlines:
        collector.add(name, area, group, "expert", holes=None if group in excluding else holes)
    return collector.result()


def _excluding(root: ElementTree.Element) -> set[str]:
    """Return the exclusion groups, by their own name or that of a parent group."""
    parents = {group.get("Name", ""): group.get("PartOfGroup", "") for group in root.iter("Group")}
    names = parents.keys() | {element.get("PartOfGroup", "") for element in root.iter("Annotation")}
    found = {name for name in names if _EXCLUDING.fullmatch(name.strip())}
    left = names - found
    while more := {name for name in left if parents.get(name) in found}:
        found |= more
        left -= more
    return found


def _cut(path: Path, name: str, area: BaseGeometry) -> BaseGeometry:
    require_repairable(path, name, area)
    return repair(area)


def _parse(path: Path, content: bytes) -> ElementTree.Element:
    text = _decoded(path, content)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        # Entities can expand to gigabytes, or refer to other files; ASAP does not use them.
        raise AnnotationError(f"{path}: got XML entities; expected plain XML as ASAP writes it")
    if text.count("<") + text.count('="') + text.count("='") > limits().text_values:
        raise AnnotationError(f"{path} has too many elements; {advice('text_values')}")
    try:
        root = ElementTree.fromstring(text)  # safe without entities
    except ElementTree.ParseError as error:
        raise AnnotationError(f"{path} is not XML: {error}") from error
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(f"{path}: got XML of {root.tag[:40]!r}; expected ASAP_Annotations")
    return root


def _decoded(path: Path, content: bytes) -> str:
    """Decode text by its byte order mark, else its declared encoding, else as UTF-8."""
    declared = _DECLARED.match(content[:200].lstrip())
    encoding = next(
        (encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if content.startswith(mark)),
        declared.group(1).decode() if declared else "utf-8",
    )
    try:
        known = _READ.match(codecs.lookup(encoding).name)
    except LookupError:
        known = None
    if known is None:
        raise AnnotationError(f"{path}: got XML in the encoding {encoding!r}; save it in UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path} is not text in {encoding.removesuffix('-sig').upper()}; expected ASAP's XML"
        ) from error


def _geometry(path: Path, name: str, element: ElementTree.Element) -> BaseGeometry:
    kind = element.get("Type", "")
    if kind in _NO_AREAS:
        return GeometryCollection()  # the collector skips it and reports that
    if kind not in _AREAS:
        raise AnnotationError(f"{path}: {name}: got type {kind[:40]!r}; expected a Polygon")
    return polygon(path, name, [list(_vertices(element))])


def _vertices(element: ElementTree.Element) -> Iterator[tuple[str | None, str | None]]:
    """Return the vertices in the order of their numbers; `polygon` checks them."""
    points = list(element.iter("Coordinate"))
    orders = [point.get("Order", "") for point in points]
    if all(order.isdecimal() and len(order) < _MAX_ORDER_DIGITS for order in orders):
        points.sort(key=lambda point: int(point.get("Order", "0")))
    return ((point.get("X"), point.get("Y")) for point in points)
