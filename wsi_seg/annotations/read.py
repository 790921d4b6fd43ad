"""Owns opening an annotation file: size limits, and the choice of format by content."""

import csv
import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

from wsi_seg.annotations.asap import is_xml, read_asap
from wsi_seg.annotations.camelyon import is_camelyon, read_camelyon
from wsi_seg.annotations.coco import is_coco, read_coco
from wsi_seg.annotations.geojson import is_geojson, read_geojson
from wsi_seg.annotations.labelme import is_labelme, read_labelme
from wsi_seg.annotations.luna16 import is_luna16, read_luna16
from wsi_seg.annotations.model import Annotations
from wsi_seg.annotations.rle_csv import is_rle_csv, read_rle_csv
from wsi_seg.choices import Dialect
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent
from wsi_seg.json_text import parse_json
from wsi_seg.limits import advice, limits
from wsi_seg.slides.volume import VolumeGrid

SUFFIXES = (".geojson", ".json", ".xml", ".csv", ".geojson.gz", ".json.gz", ".csv.gz")


def read_annotations(path: Path | str, *, default_class: str | None = None) -> Annotations:
    """Read the annotation file of one slide; its content, not its name, decides the format.

    Parameters
    ----------
    path
        GeoJSON (QuPath's and HuBMAP's forms included), LabelMe or CAMELYON-style JSON, or ASAP's
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
    """
    path = Path(path)
    content = _content(path)
    header = _csv_header(content)
    many = is_luna16(header) or is_rle_csv(header)
    found = {} if many else _read(path, content, default_class)
    if not isinstance(found, Annotations):
        raise AnnotationError(
            f"{path} holds annotations of many images; give it to a collection of them"
        )
    return found


def read_for_slides(
    path: Path,
    extents: Mapping[str, Extent],
    *,
    default_class: str | None = None,
    dialect: Dialect | None = None,
    volumes: Mapping[str, VolumeGrid] | None = None,
) -> Annotations | dict[str, Annotations]:
    """Read an annotation file, which may belong to one slide or name its slides itself.

    Parameters
    ----------
    path
        As for `read_annotations`; or COCO's JSON, or a csv of run-length encoded masks or of
        spheres.
    extents
        Sizes of the slides, by name.
    default_class
        Class of features that name none; None refuses them.
    dialect
        How a csv writes runs; None finds it from the masks.
    volumes
        Grids of the volumes that a csv of spheres names.

    Returns
    -------
    Annotations or dict[str, Annotations]
        Those of one slide, or by the names of slides; the latter also of slides that are not
        among ``extents``, where the file holds all that is needed.

    Raises
    ------
    AnnotationError
        If the file cannot be read, naming the file and the feature.
    """
    content = _content(path)
    header = _csv_header(content)
    if is_luna16(header):
        text = _text(path, content)
        return read_luna16(path, text, volumes or {}, default_class=default_class)
    if is_rle_csv(header):
        text = _text(path, content)
        return read_rle_csv(path, text, extents, default_class=default_class, dialect=dialect)
    return _read(path, content, default_class)


def _read(
    path: Path, content: bytes, default_class: str | None
) -> Annotations | dict[str, Annotations]:
    if is_xml(content):
        return read_asap(path, content, default_class=default_class)
    document = _parse(path, content)
    if is_coco(document):
        assert isinstance(document, dict)
        return read_coco(path, document)
    if is_labelme(document):
        assert isinstance(document, dict)
        return read_labelme(path, document)
    if is_camelyon(document):
        assert isinstance(document, dict)
        return read_camelyon(path, document, default_class=default_class)
    if is_geojson(document):
        return read_geojson(path, document, default_class=default_class)
    raise AnnotationError(
        f"{path}: got JSON of no known form; expected GeoJSON, LabelMe, COCO or CAMELYON-style"
    )


def _csv_header(content: bytes) -> list[str]:
    """Columns that the first line names, if the file is a csv at all."""
    first = content[:4096].decode("utf-8-sig", "replace").splitlines()[:1]
    if not first or first[0].lstrip()[:1] in {"{", "["}:
        return []
    try:
        return next(csv.reader(first), [])
    except csv.Error:
        return []


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not text in UTF-8; expected a csv file") from error


def _content(path: Path) -> bytes:
    most = limits().text_bytes
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                content = file.read(most + 1)
            else:
                with gzip.open(file) as unpacked:
                    content = unpacked.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    if len(content) > most:
        raise AnnotationError(f"{path} has too many bytes; {advice('text_bytes')}, or split it")
    return content


def _parse(path: Path, content: bytes) -> object:
    try:
        return parse_json(content)
    except ValueError as error:
        raise AnnotationError(
            f"{path} is not JSON ({error}); expected an annotation file: GeoJSON, LabelMe, COCO, "
            "CAMELYON-style JSON, ASAP's XML, or a csv with columns such as ImageId, EncodedPixels"
        ) from error
