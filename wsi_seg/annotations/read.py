"""Owns opening an annotation file: size limits, and the choice of format by content."""

import gzip
import json
from pathlib import Path

from wsi_seg.annotations.geojson import is_geojson, read_geojson
from wsi_seg.annotations.labelme import is_labelme, read_labelme
from wsi_seg.annotations.model import Annotations
from wsi_seg.errors import AnnotationError

# LabelMe embeds its image in the file; larger files than this are something else.
MAX_BYTES = 2**31

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")


def read_annotations(path: Path, *, default_class: str | None = None) -> Annotations:
    """Read an annotation file; its content, not its name, decides the format.

    Parameters
    ----------
    path
        GeoJSON (QuPath's and HuBMAP's forms included) or LabelMe JSON, plain or gzipped.
    default_class
        Class of features that name none; None refuses them.

    Returns
    -------
    Annotations
        Valid polygons in level-0 px, and what had to be repaired.

    Raises
    ------
    AnnotationError
        If the file cannot be read, naming the file and the feature.
    """
    document = _parse(path, _content(path))
    if is_labelme(document):
        assert isinstance(document, dict)
        return read_labelme(path, document)
    if is_geojson(document):
        return read_geojson(path, document, default_class=default_class)
    raise AnnotationError(
        f"{path}: got JSON that is neither GeoJSON nor LabelMe; expected features or shapes"
    )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                content = file.read(MAX_BYTES + 1)
            else:
                with gzip.open(file) as unpacked:
                    content = unpacked.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise AnnotationError(f"{path} is larger than {MAX_BYTES // 2**20} MB; split it")
    return content


def _parse(path: Path, content: bytes) -> object:
    try:
        document: object = json.loads(content)
    except RecursionError as error:
        raise AnnotationError(f"{path}: its JSON is nested too deep; expected features") from error
    except ValueError as error:
        raise AnnotationError(
            f"{path} is not JSON ({error}); expected GeoJSON or LabelMe"
        ) from error
    return document
