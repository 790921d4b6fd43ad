"""Owns reading csv files of run-length encoded masks: many images in one file."""

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

# Usual names of columns, the most usual first; compared by `table.plain`.
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
_OF = "(img|image|slide|mask|orig|original|full|picture|frame)*"
_HEIGHT = re.compile(f"{_OF}(height|h)(px|pixels?)?|n?rows|{_OF}(sizey|ysize)")
_WIDTH = re.compile(f"{_OF}(width|w)(px|pixels?)?|n?(cols|columns)|{_OF}(sizex|xsize)")
_INDEX = re.compile(r"|unnamed\d*|index|row|rowid")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Places of the columns that are read; ``joined``: the image's cell ends with the class."""

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

    def unread(self, table: Table) -> list[str]:
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

    def extent_of(self, place: str, cells: Sequence[str], slide: Extent) -> Extent:
        """Size that a row states of its image; the slide's where it states none."""
        tall, wide = ("" if at is None else cells[at].strip() for at in self.size)
        if not tall and not wide:
            return slide
        return stated_extent(place, tall or slide.height, wide or slide.width)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    text: str
    class_name: str
    extent: Extent


def is_rle_csv(header: Sequence[str]) -> bool:
    """Whether a csv file with these columns holds run-length encoded masks."""
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
    """Read the masks of the images whose size is known.

    Where an image has several rows of a class, each row is an object; otherwise the connected
    parts of its mask are. Masks of a lower resolution, by the size that the file states, are
    scaled up.

    Parameters
    ----------
    path
        The file, for messages.
    table
        A row for each mask.
    extents
        Sizes of the slides, by name; rows of other images are passed over.
    default_class
        Class of rows that name none.
    dialect
        How runs are written; None finds it from the masks.

    Raises
    ------
    AnnotationError
        If two images fit one slide, or a row cannot be read, naming its line.
    """
    names = SlideNames(extents)
    columns = _Columns.of(table, _image_column(table, names))
    images = [columns.image_of(cells) for _, cells in table.rows]
    slides, strangers = names.assign(path, images)
    masks: dict[str, list[_Row]] = {slide: [] for slide in slides.values()}
    for image, (line, cells) in zip(images, table.rows, strict=True):
        slide, text = slides.get(image), cells[columns.mask]
        if slide is None or is_empty(text):
            continue
        place = f"line {line}"
        class_name = require_class(path, place, columns.class_of(cells) or default_class)
        extent = columns.extent_of(f"{path}: {place}", cells, extents[slide])
        masks[slide].append(_Row(line, text, class_name, extent))
    sure = True
    if dialect is None:
        try:
            dialect, sure = dialect_of(_sized(table, columns, images, slides, masks))
        except AnnotationError as error:
            raise AnnotationError(f"{path}: {error}") from error
    apart = any(
        count > 1
        for rows in masks.values()
        for count in Counter(row.class_name for row in rows).values()
    )
    notes = [] if sure else ["runs are read as absolute, relative fits too (--rle relative)"]
    if unread := columns.unread(table):
        notes.append(f"columns that are not read: {', '.join(unread)}")
    return AnnotationSets(
        {
            slide: _objects(path, rows, extents[slide], dialect, apart=apart)
            for slide, rows in masks.items()
        },
        tuple(strangers),
        tuple(notes),
    )


def _sized(
    table: Table,
    columns: _Columns,
    images: Sequence[str],
    slides: Mapping[str, str],
    masks: Mapping[str, list[_Row]],
) -> Iterator[tuple[str, Extent | None]]:
    """All masks of a file; those of other images have no known size and still tell a dialect."""
    for rows in masks.values():
        yield from ((row.text, row.extent) for row in rows)
    for image, (_, cells) in zip(images, table.rows, strict=True):
        if image not in slides:
            yield cells[columns.mask], None


def _objects(
    path: Path, rows: Sequence[_Row], slide: Extent, dialect: Dialect, *, apart: bool
) -> Annotations:
    """Give the objects of one image, of each row one or one for each connected part."""
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
        for number, outline in enumerate([parts] if apart else [[part] for part in parts]):
            name = place if apart else f"{place}, object {number}"
            collector.add(name, MultiPolygon(outline), row.class_name, "expert")
    return collector.result()


def _image_column(table: Table, names: SlideNames) -> int | None:
    """Column that names the images: of several the first in which a slide is named."""
    known = [plain(name) for name in table.header]
    places = [known.index(name) for name in _IMAGE if name in known]
    for place in places:
        if any(_fits(names, cells[place]) for _, cells in table.rows):
            return place
    return places[0] if places else None


def _fits(names: SlideNames, name: str) -> bool:
    try:
        return names.find(name) is not None
    except AnnotationError:  # fits several: `SlideNames.assign` says so
        return True


def _is_joined(column: str) -> bool:
    """Whether cells are an image and a class, joined by ``_``, as in ``ImageId_ClassId``."""
    name = plain(column)
    return "_" in column and any(name == image + kind for image in _IMAGE for kind in _CLASS)


def _matching(table: Table, pattern: re.Pattern[str]) -> int | None:
    return next((n for n, c in enumerate(table.header) if pattern.fullmatch(plain(c))), None)
