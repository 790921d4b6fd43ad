"""Owns opening annotation files: size limits, and detecting the format by content."""

import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsi_seg.annotations.asap import is_xml, read_asap
from wsi_seg.annotations.camelyon import is_camelyon, read_camelyon
from wsi_seg.annotations.coco import is_coco, read_coco
from wsi_seg.annotations.geojson import is_geojson, read_geojson
from wsi_seg.annotations.labelme import is_labelme, read_labelme
from wsi_seg.annotations.luna16 import is_luna16, read_luna16
from wsi_seg.annotations.model import Annotations, AnnotationSets
from wsi_seg.annotations.rle_csv import is_rle_csv, read_rle_csv
from wsi_seg.annotations.table import Table, headers, read_table
from wsi_seg.choices import Dialect
from wsi_seg.errors import AnnotationError
from wsi_seg.files.json_text import parse_json
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits
from wsi_seg.slides.volume import VolumeGrid

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SUFFIXES = (".geojson", ".json", ".xml", ".geojson.gz", ".json.gz", ".xml.gz", *_TABLES)

# Magic numbers of files that are not annotations, and what these are.
_OTHERS = {
    b"\xff\xd8\xff": "a JPEG image, whose lossy compression changes class ids",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"PK\x03\x04": "a ZIP archive (.zip, .npz, .xlsx)",
    b"BM": "a BMP image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a MATLAB file",
    b"%PDF": "a PDF file",
    b"\x80\x04": "a Python pickle, which can run code",
    b"\x80\x05": "a Python pickle, which can run code",
    b"SQLite": "an SQLite file",
}


def read_annotations(path: Path | str, *, default_class: str | None = None) -> Annotations:
    """Read the annotation file of one slide; the format is detected by content, not by name.

    Parameters
    ----------
    path
        GeoJSON (including the forms of QuPath and HuBMAP), LabelMe or CAMELYON-style JSON, or ASAP
        XML; plain or gzipped.
    default_class
        Class of features that name none; None refuses them.

    Returns
    -------
    Annotations
        Valid polygons in level-0 pixels, and what had to be repaired.

    Raises
    ------
    AnnotationError
        If the file cannot be read, naming the file and the feature.

    Examples
    --------
    >>> read_annotations("slide-1.geojson").items[0].class_name  # doctest: +SKIP
    'gland'
    """
    path = Path(path)
    found = read_for_slides(path, {}, default_class=default_class)
    if isinstance(found, AnnotationSets):
        raise AnnotationError(
            f"{path} holds annotations of many images; expected those of one; use `wsi-seg "
            "annotate` with a collection of these slides"
        )
    return found


def read_for_slides(
    path: Path,
    extents: Mapping[str, Extent],
    *,
    default_class: str | None = None,
    dialect: Dialect | None = None,
    volumes: Mapping[str, VolumeGrid] | None = None,
) -> Annotations | AnnotationSets:
    """Read an annotation file, which belongs to one slide or names its slides.

    Parameters
    ----------
    path
        As for `read_annotations`; or COCO JSON, or a csv of run-length encoded masks or of
        spheres.
    extents
        Sizes of the slides, by name.
    default_class
        Class of features that name none; None refuses them.
    dialect
        RLE dialect of a csv; None detects it from the masks.
    volumes
        Grids of the volumes that a csv of spheres names.

    Returns
    -------
    Annotations or AnnotationSets
        Those of one slide, or of the slides that the file names.

    Raises
    ------
    AnnotationError
        If the file cannot be read, naming the file and the feature.
    """
    content = _content(path)
    for separator, header in headers(content):
        if is_luna16(header):
            table = _table(path, content, separator, header)
            return read_luna16(path, table, volumes or {}, default_class=default_class)
        if is_rle_csv(header):
            table = _table(path, content, separator, header)
            return read_rle_csv(path, table, extents, default_class=default_class, dialect=dialect)
    if path.name.lower().endswith(_TABLES):
        raise AnnotationError(_unknown_columns(path, content))
    return _read(path, content, extents, default_class)


def _table(path: Path, content: bytes, separator: str, header: tuple[str, ...]) -> Table:
    """Read a table, and check that its header is the first line, which decided the format."""
    table = read_table(path, content, separator)
    if table.header != header:
        raise AnnotationError(
            f"{path}: got a quoted column name that continues after line 1; expected the columns "
            f"{', '.join(header)} on one line"
        )
    return table


def _read(
    path: Path, content: bytes, slides: Iterable[str], default_class: str | None
) -> Annotations | AnnotationSets:
    if is_xml(content):
        return read_asap(path, content, default_class=default_class)
    document = _parse(path, content)
    if is_coco(document):
        assert isinstance(document, dict)
        return read_coco(path, document, slides)
    if is_labelme(document):
        assert isinstance(document, dict)
        return read_labelme(path, document)
    if is_camelyon(document):
        assert isinstance(document, dict)
        return read_camelyon(path, document, default_class=default_class)
    if is_geojson(document):
        return read_geojson(path, document, default_class=default_class)
    raise AnnotationError(
        f"{path}: got JSON in an unknown format; expected GeoJSON, LabelMe, COCO or CAMELYON-style"
    )


def _unknown_columns(path: Path, content: bytes) -> str:
    found = max((header for _, header in headers(content)), key=len, default=())
    return (
        f"{path}: got the columns {', '.join(found) or '(not a table)'}; expected images (id, "
        "ImageId, filename ...) and masks (rle, EncodedPixels, encoding ...), or spheres "
        "(seriesuid, coordX, coordY, coordZ, diameter_mm), separated by commas, semicolons or tabs"
    )


def _content(path: Path) -> bytes:
    limit = limits().text_bytes
    try:
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not gzipped:
                content = file.read(limit + 1)
            else:
                with gzip.open(file) as unpacked:
                    content = unpacked.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    if len(content) > limit:
        raise AnnotationError(f"{path} has too many bytes; {advice('text_bytes')}, or split it")
    return content


def _parse(path: Path, content: bytes) -> object:
    try:
        return parse_json(content)
    except ValueError as error:
        kind = next((kind for mark, kind in _OTHERS.items() if content.startswith(mark)), None)
        raise AnnotationError(
            f"{path} is {kind or f'not JSON ({error})'}; expected an annotation file: GeoJSON, "
            "LabelMe, COCO, CAMELYON-style JSON, ASAP XML, a csv with columns such as ImageId, "
            "EncodedPixels, or a mask as PNG or TIFF"
        ) from error
