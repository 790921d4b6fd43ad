"""Owns reading csv files of run-length encoded masks: many images in one file, rows united."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from shapely.geometry import MultiPolygon

from wsi_seg.annotations.model import Annotations, Collector, require_class
from wsi_seg.annotations.rle import dialect_of, outline_runs, read_runs, require_inside
from wsi_seg.choices import Dialect
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits

_IMAGE = ("imageid", "image_id", "id", "image", "slide", "filename", "file_name")
_MASK = ("encodedpixels", "rle", "encoding", "expected", "predicted", "mask")
_CLASS = ("class", "label", "class_name", "classname")


def is_rle_csv(header: Sequence[str]) -> bool:
    """Whether a csv file with these columns holds run-length encoded masks."""
    return _column(header, _IMAGE) is not None and _column(header, _MASK) is not None


def read_rle_csv(
    path: Path,
    text: str,
    extents: Mapping[str, Extent],
    *,
    default_class: str | None,
    dialect: Dialect | None,
) -> dict[str, Annotations]:
    """Read the masks of the images whose size is known.

    Parameters
    ----------
    path
        The file, for messages.
    text
        Its content: a header that names columns, then a row for each mask.
    extents
        Sizes of the slides, by name; rows of other images are passed over.
    default_class
        Class of rows that name none.
    dialect
        How runs are written; None finds it from the masks.

    Returns
    -------
    dict[str, Annotations]
        By slide. All rows of one image and class are united; its connected parts are the objects.
    """
    rows = _rows(path, text)
    header = rows[0]
    image, mask, kind = (_column(header, names) for names in (_IMAGE, _MASK, _CLASS))
    assert image is not None, "checked by is_rle_csv"
    assert mask is not None
    names = {name.lower(): name for name in extents}
    masks: dict[str, dict[str, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise AnnotationError(
                f"{path}: line {line} has {len(row)} columns; expected {len(header)}"
            )
        slide = names.get(row[image].lower()) or names.get(PurePosixPath(row[image]).stem.lower())
        if slide is not None:
            stated = row[kind].strip() if kind is not None else ""
            class_name = require_class(path, f"line {line}", stated or default_class)
            masks[slide][class_name].append((line, row[mask]))
    try:
        dialect = dialect or dialect_of(row[mask] for row in rows[1:])
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}") from error
    return {
        slide: _united(path, classes, extents[slide], dialect) for slide, classes in masks.items()
    }


def _rows(path: Path, text: str) -> list[list[str]]:
    """Cells of a csv, however long; a mask may take megabytes."""
    if text.count(",") + text.count("\n") > limits().text_values:
        raise AnnotationError(f"{path} has too many cells; {advice('text_values')}")
    before = csv.field_size_limit(limits().text_bytes)
    try:
        return list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise AnnotationError(f"{path} is not a csv file: {error}") from error
    finally:
        csv.field_size_limit(before)


def _united(
    path: Path, classes: Mapping[str, list[tuple[int, str]]], extent: Extent, dialect: Dialect
) -> Annotations:
    """Give the objects of one image."""
    collector = Collector(path)
    for class_name, masks in classes.items():
        runs = []
        for line, text in masks:
            try:
                runs.append(require_inside(read_runs(text, dialect=dialect), extent))
            except AnnotationError as error:
                raise AnnotationError(f"{path}: line {line}: {error}") from error
        polygons = outline_runs(np.concatenate(runs), extent.height)
        for number, outline in enumerate(polygons):
            name = f"line {masks[0][0]}, object {number}"
            collector.add(name, MultiPolygon([outline]), class_name, "expert")
    return collector.result()


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    known = [column.strip().lower() for column in header]
    return next((known.index(name) for name in names if name in known), None)
