"""Owns converting mask images (PNG, TIFF) to annotations, outlined strip by strip."""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from shapely.affinity import scale
from shapely.geometry import MultiPolygon, Polygon

from wsi_seg.annotations import Annotations
from wsi_seg.annotations.model import Collector, require_class
from wsi_seg.annotations.sizes import downsample_of
from wsi_seg.classes import IGNORE, IGNORE_NAME
from wsi_seg.errors import AnnotationError, SlideError
from wsi_seg.geometry import Extent
from wsi_seg.masks.vectorize import Strip, vectorize
from wsi_seg.slides.stacked import read_stack

MASK_SUFFIXES = (".png", ".tif", ".tiff")

# Drivers by magic number: GDAL must not choose among all its drivers for untrusted files.
_DRIVERS = {
    b"\x89PNG": "PNG",
    b"II*\x00": "GTiff",
    b"MM\x00*": "GTiff",
    b"II+\x00": "GTiff",
    b"MM\x00+": "GTiff",
}
_STRIP_ROWS = 1024
_MAX_ID = 2**31 - 1


def is_mask(path: Path) -> bool:
    """Return whether a file's content is a PNG or TIFF image."""
    return _driver(path) is not None


def _driver(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return _DRIVERS.get(file.read(4))
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror or error}") from error


def outline_mask(
    path: Path,
    extent: Extent,
    *,
    class_names: Sequence[str] = (),
    default_class: str | None = None,
) -> Annotations:
    """Outline the objects of a label image.

    Parameters
    ----------
    path
        PNG or TIFF with one channel. 8-bit values are class ids, 255 is ignore; if there is a
        single value other than 0 (often 255), it is one class. 16 and 32-bit values are object ids.
    extent
        Size of the slide; a mask of the same aspect ratio at a lower resolution is scaled up.
    class_names
        Classes of the ids 1, 2, 3 ...
    default_class
        Class of a mask with a single value, or with object ids; by default the only one of
        ``class_names``.

    Returns
    -------
    Annotations
        Polygons ``(x, y)`` in level-0 pixels along pixel borders; an object is a connected
        component of one class, or all pixels of one object id.

    Raises
    ------
    AnnotationError
        If the file cannot be read, has another aspect ratio, or has ids without a name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path.absolute(), driver=_driver(path)) as image:
                _require_labels(path, image)
                _require_one(path)
                size = Extent(height=image.height, width=image.width)
                down = downsample_of(str(path), size, extent)
                found = list(vectorize(_strips(path, image)))
                numbered = image.dtypes[0] != "uint8"
    except RasterioError as error:
        raise AnnotationError(f"{path} cannot be read as a mask: {error}") from error
    only = default_class or (class_names[0] if len(class_names) == 1 else None)
    collector = Collector(path)
    if numbered:
        class_name = require_class(path, "a mask of numbered objects", only)
        objects: dict[int, list[Polygon]] = defaultdict(list)
        for value, outline in found:
            objects[value].append(outline)
        for value, parts in sorted(objects.items()):
            collector.add(
                f"object {value}", _scaled(MultiPolygon(parts), down), class_name, "expert"
            )
        return collector.result()
    values = {value for value, _ in found}
    names = _names(path, values, class_names, only)
    if values == {IGNORE} and names[IGNORE] == IGNORE_NAME:
        collector.repairs.append(f"{path.name}: its only value, 255, is read as {IGNORE_NAME}")
    for number, (value, outline) in enumerate(found):
        collector.add(f"object {number}", _scaled(outline, down), names[value], "expert")
    return collector.result()


def _require_labels(path: Path, image: rasterio.DatasetReader) -> None:
    if image.count != 1 or image.dtypes[0] not in {"uint8", "uint16", "int16", "int32", "uint32"}:
        raise AnnotationError(
            f"{path}: got {image.count} channels of {image.dtypes[0]}; expected a mask: one "
            "channel of integers"
        )


def _require_one(path: Path) -> None:
    """Refuse a file with several images, or with an orientation other than upright."""
    if _driver(path) == "PNG":
        count, orientation = (2 if _is_animated(path) else 1), 1
    else:
        try:
            stack = read_stack(path)
        except SlideError as error:
            raise AnnotationError(str(error)) from error
        count, orientation = stack.count, stack.orientation
    if count > 1:
        raise AnnotationError(
            f"{path}: got {count} {'frames' if _driver(path) == 'PNG' else 'pages'}; expected one "
            "mask; save one file with all class ids, or one file for each"
        )
    if orientation != 1:
        raise AnnotationError(
            f"{path}: got a mask of TIFF orientation {orientation}; expected 1; rotate it and save "
            "it again"
        )


def _is_animated(path: Path) -> bool:
    """Return whether a PNG is animated: its chunk ``acTL`` comes before the image data."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            if head[4:] == b"acTL":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def _strips(path: Path, image: rasterio.DatasetReader) -> Iterator[Strip]:
    for y in range(0, image.height, _STRIP_ROWS):
        window = Window(0, y, image.width, min(_STRIP_ROWS, image.height - y))
        rows = image.read(1, window=window)
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high > _MAX_ID:
            raise AnnotationError(
                f"{path}: got ids {low} to {high}; expected 0 to {_MAX_ID}, 0 for background"
            )
        yield y, rows if rows.dtype == np.uint8 else rows.astype(np.int32)


def _names(
    path: Path, values: set[int], class_names: Sequence[str], only: str | None
) -> dict[int, str]:
    if len(values) <= 1 and (only is not None or not class_names):
        return {value: require_class(path, f"the value {value}", only) for value in values}
    names = dict(enumerate(class_names, 1)) | {IGNORE: IGNORE_NAME}
    unknown = sorted(values - names.keys())
    if unknown:
        raise AnnotationError(
            f"{path}: got class ids {unknown[:8]}; name the classes of ids 1, 2, 3 ... with "
            f"--classes (got {', '.join(class_names) or 'none'})"
        )
    return names


def _scaled[Area: (Polygon, MultiPolygon)](area: Area, down: tuple[float, float]) -> Area:
    return scale(area, xfact=down[1], yfact=down[0], origin=(0, 0))
