"""Owns reading CAMELYON-style JSON: positive outlines, with negative ones as holes."""

from pathlib import Path

import shapely

from wsi_seg.annotations.model import (
    Annotations,
    Collector,
    polygon,
    repair,
    require_class,
    require_repairable,
)
from wsi_seg.errors import AnnotationError


def is_camelyon(document: object) -> bool:
    """Return whether parsed JSON has lists of positive and negative outlines."""
    return isinstance(document, dict) and {"positive", "negative"} <= document.keys()


def read_camelyon(
    path: Path, document: dict[str, object], *, default_class: str | None
) -> Annotations:
    """Read positive outlines, minus the negative areas.

    Parameters
    ----------
    path
        The file, for messages.
    document
        The parsed JSON.
    default_class
        Class of the positive outlines; the format has no classes.
    """
    collector = Collector(path)
    outlines = {kind: _outlines(path, document, kind) for kind in ("positive", "negative")}
    for name, hole in outlines["negative"]:
        require_repairable(path, name, hole)
    holes = shapely.union_all([repair(hole) for _, hole in outlines["negative"]])
    for name, outline in outlines["positive"]:
        class_name = require_class(path, name, default_class)
        collector.add(name, outline, class_name, "expert", holes=holes)
    return collector.result()


def _outlines(
    path: Path, document: dict[str, object], kind: str
) -> list[tuple[str, shapely.Polygon]]:
    entries = document[kind]
    if not isinstance(entries, list):
        raise AnnotationError(f"{path}: got {type(entries).__name__} as {kind!r}; expected a list")
    outlines = []
    for number, entry in enumerate(entries):
        name = f"{kind} {number}"
        if not isinstance(entry, dict):
            raise AnnotationError(f"{path}: {name} is {type(entry).__name__}; expected an object")
        outlines.append((name, polygon(path, name, [entry.get("vertices")])))
    return outlines
