"""Owns reading csv files of run-length encoded masks of many images."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapely.affinity import scale
from shapely.geometry import MultiPolygon

from wsi_seg.annotations.model import Annotations, AnnotationSets, Collector, require_class
from wsi_seg.annotations.names import SlideNames
from wsi_seg.annotations.rle import (
    dialect_of,
    is_empty,
    outline_runs,
    read_runs,
    require_inside,
)
from wsi_seg.annotations.sizes import downsample_of, stated_extent
from wsi_seg.annotations.table import Table, plain
from wsi_seg.choices import Dialect
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent

# Common column names, the most common first; compared by `table.plain`.
_IMAGE = (
    "imageid", "imgid", "slideid", "id", "image", "img", "slide", "imagename", "imgname",
    "slidename", "imagefile", "imagefilename", "filename", "file", "imagepath", "filepath", "path",
    "name",
)  # fmt: skip
_MASK = (
    "encodedpixels", "rle", "encoding", "rlemask", "maskrle", "encodedmask", "encodedrle",
    "rleencoding", "rleencoded", "runs", "expected", "predicted", "segmentation", "annotation",
    "mask", "pixels",
)  # fmt: skip
_CLASS = (
    "class", "classname", "label", "labelname", "category", "categoryname", "celltype",
    "structure", "classid", "labelid", "categoryid", "classlabel",
)  # fmt: skip
_PREFIX = "(img|image|slide|mask|orig|original|full|picture|frame)*"
_HEIGHT = re.compile(f"{_PREFIX}(height|h)(px|pixels?)?|n?rows|{_PREFIX}(sizey|ysize)")
_WIDTH = re.compile(f"{_PREFIX}(width|w)(px|pixels?)?|n?(cols|columns)|{_PREFIX}(sizex|xsize)")
_INDEX = re.compile(r"|unnamed\d*|index|row|rowid")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Indices of the columns; ``joined``: cells of the image column end with the class."""

    image: int
    mask: int
    kind: int | None
    size: tuple[int | None, int | None]
    joined: bool

    @classmethod
    def of(cls, table: Table, image: int | None) -> "_Columns":
        joined = image is None
        if image is None:
            image = next(n for n, name in enumerate(table.header) if _is_joined(name))
        mask = table.column(_MASK)
        assert mask is not None, "checked by is_rle_csv"
        size = (_matching(table, _HEIGHT), _matching(table, _WIDTH))
        return cls(image, mask, None if joined else table.column(_CLASS), size, joined)

    def ignored(self, table: Table) -> list[str]:
        read = {self.image, self.mask, self.kind, *self.size}
        return [
            name
            for number, name in enumerate(table.header)
            if number not in read and not _INDEX.fullmatch(plain(name))
        ]

    def image_of(self, cells: Sequence[str]) -> str:
        cell = cells[self.image]
        return cell.rpartition("_")[0] if self.joined else cell

    def class_of(self, cells: Sequence[str]) -> str:
        if self.joined:
            return cells[self.image].rpartition("_")[2].strip()
        return "" if self.kind is None else cells[self.kind].strip()

    def extent_of(self, row: str, cells: Sequence[str], slide: Extent) -> Extent:
        """Return the image size that a row states; that of the slide if it states none."""
        tall, wide = ("" if at is None else cells[at].strip() for at in self.size)
        if not tall and not wide:
            return slide
        return stated_extent(row, tall or slide.height, wide or slide.width)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    text: str
    class_name: str
    extent: Extent


def is_rle_csv(header: Sequence[str]) -> bool:
    """Return whether a csv file with these columns holds run-length encoded masks."""
    names = {plain(name) for name in header}
    named = bool(names & set(_IMAGE)) or any(map(_is_joined, header))
    return named and bool(names & set(_MASK))


def read_rle_csv(
    path: Path,
    table: Table,
    extents: Mapping[str, Extent],
    *,
    default_class: str | None,
    dialect: Dialect | None,
) -> AnnotationSets:
    """Read the masks of known slides.

    If any image has several rows of one class, each row is an object; otherwise each connected
    part of a mask is one. Masks of a lower resolution, by the size that the file states, are
    scaled up.

    Parameters
    ----------
    path
        The file, for messages.
    table
        One row per mask.
    extents
        Sizes of the slides, by name; rows of other images are skipped.
    default_class
        Class of rows without one.
    dialect
        RLE dialect; None detects it from the masks.

    Raises
    ------
    AnnotationError
        If two images match one slide, or a row cannot be read, naming its line.
    """
    names = SlideNames(extents)
    columns = _Columns.of(table, _image_column(table, names))
    images = [columns.image_of(cells) for _, cells in table.rows]
    slides, unmatched = names.assign(path, images)
    masks: dict[str, list[_Row]] = {slide: [] for slide in slides.values()}
    for image, (line, cells) in zip(images, table.rows, strict=True):
        slide, text = slides.get(image), cells[columns.mask]
        if slide is None or is_empty(text):
            continue
        row = f"line {line}"
        class_name = require_class(path, row, columns.class_of(cells) or default_class)
        extent = columns.extent_of(f"{path}: {row}", cells, extents[slide])
        masks[slide].append(_Row(line, text, class_name, extent))
    sure = True
    if dialect is None:
        try:
            dialect, sure = dialect_of(_masks_with_sizes(table, columns, images, slides, masks))
        except AnnotationError as error:
            raise AnnotationError(f"{path}: {error}") from error
    by_row = any(
        count > 1
        for rows in masks.values()
        for count in Counter(row.class_name for row in rows).values()
    )
    notes = [] if sure else ["runs are read as absolute; relative matches, too (--rle relative)"]
    if ignored := columns.ignored(table):
        notes.append(f"ignored columns: {', '.join(ignored)}")
    return AnnotationSets(
        {
            slide: _objects(path, rows, extents[slide], dialect, by_row=by_row)
            for slide, rows in masks.items()
        },
        tuple(unmatched),
        tuple(notes),
    )


def _masks_with_sizes(
    table: Table,
    columns: _Columns,
    images: Sequence[str],
    slides: Mapping[str, str],
    masks: Mapping[str, list[_Row]],
) -> Iterator[tuple[str, Extent | None]]:
    """Yield all masks of a file; those of unknown images have no size, but help detection."""
    for rows in masks.values():
        yield from ((row.text, row.extent) for row in rows)
    for image, (_, cells) in zip(images, table.rows, strict=True):
        if image not in slides:
            yield cells[columns.mask], None


def _objects(
    path: Path, rows: Sequence[_Row], slide: Extent, dialect: Dialect, *, by_row: bool
) -> Annotations:
    """Return the objects of one image: one per row, or one per connected part."""
    collector = Collector(path)
    for row in rows:
        place = f"line {row.line}"
        try:
            runs = require_inside(read_runs(row.text, dialect=dialect), row.extent)
        except AnnotationError as error:
            raise AnnotationError(f"{path}: {place}: {error}") from error
        tall, wide = downsample_of(f"{path}: {place}", row.extent, slide)
        parts = [
            scale(part, xfact=wide, yfact=tall, origin=(0, 0))
            for part in outline_runs(runs, row.extent.height)
        ]
        for number, outline in enumerate([parts] if by_row else [[part] for part in parts]):
            name = place if by_row else f"{place}, object {number}"
            collector.add(name, MultiPolygon(outline), row.class_name, "expert")
    return collector.result()


def _image_column(table: Table, names: SlideNames) -> int | None:
    """Return the column with image names: of several, the first that names a slide."""
    known = [plain(name) for name in table.header]
    columns = [known.index(name) for name in _IMAGE if name in known]
    for column in columns:
        if any(_matches(names, cells[column]) for _, cells in table.rows):
            return column
    return columns[0] if columns else None


def _matches(names: SlideNames, name: str) -> bool:
    try:
        return names.find(name) is not None
    except AnnotationError:  # it matches several slides: `SlideNames.assign` reports that
        return True


def _is_joined(column: str) -> bool:
    """Return whether cells are an image and a class joined by ``_``, as in ``ImageId_ClassId``."""
    name = plain(column)
    return "_" in column and any(name == image + kind for image in _IMAGE for kind in _CLASS)


def _matching(table: Table, pattern: re.Pattern[str]) -> int | None:
    return next((n for n, c in enumerate(table.header) if pattern.fullmatch(plain(c))), None)
