"""Owns converting DICOM segmentations to annotations, and finding them in folders."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from shapely.affinity import scale

from wsi_seg.annotations import Annotations
from wsi_seg.annotations.model import Collector
from wsi_seg.annotations.sizes import downsample_of
from wsi_seg.errors import AnnotationError, SlideError
from wsi_seg.extras import naming_extra
from wsi_seg.geometry import Extent
from wsi_seg.masks.vectorize import Strip, vectorize
from wsi_seg.slides.containers import is_dicom

if TYPE_CHECKING:
    from types import ModuleType

_STRIP_ROWS = 1024


def outline_segmentation(path: Path, extent: Extent) -> Annotations:
    """Outline the segments of a DICOM segmentation of a slide.

    Parameters
    ----------
    path
        Tiled file of type BINARY, LABELMAP or FRACTIONAL; in the last, pixels with at least half
        of the maximum value count.
    extent
        Size of the slide; a coarser level of the segmentation is scaled up.

    Returns
    -------
    Annotations
        Polygons ``(x, y)`` in level-0 pixels along pixel borders, with segment labels as classes.
        Segments may overlap: later ones are drawn over earlier ones.

    Raises
    ------
    AnnotationError
        If the file cannot be read, or has another aspect ratio.

    Examples
    --------
    >>> outline_segmentation(Path("seg/slide/level-0.dcm"), extent)  # doctest: +SKIP
    """
    collector = Collector(path)
    try:
        found = _reader(path).read_segmentation(path)
        down = downsample_of(str(path), found.extent, extent)
        for plane in found.planes():
            for number, (value, outline) in enumerate(vectorize(_strips(plane))):
                if value not in found.names:
                    raise AnnotationError(
                        f"{path}: got pixels of segment {value}; expected one in its header: "
                        f"{sorted(found.names)}"
                    )
                polygon = scale(outline, xfact=down[1], yfact=down[0], origin=(0, 0))
                collector.add(f"object {number}", polygon, found.names[value], "expert")
    except SlideError as error:
        raise AnnotationError(str(error)) from error
    return collector.result()


def _reader(path: Path) -> "ModuleType":
    """Import the DICOM reader on demand: it is slow to import, and pydicom is optional."""
    with naming_extra(str(path)):
        return importlib.import_module("wsi_seg.slides.segmentation")


def is_dicom_file(path: Path) -> bool:
    """Return whether a file has DICOM's magic number."""
    try:
        return is_dicom(path)
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror or error}") from error


def segmentations_in(paths: Iterable[Path]) -> list[Path]:
    """List the files that are DICOM segmentations of slides, finest level first.

    Slides, other DICOM files, and files that cannot be read are skipped.
    """
    found = {}
    for path in paths:
        if path.suffix.lower() == ".dcm" and path.is_file() and is_dicom_file(path):
            with suppress(SlideError):
                if (extent := _reader(path).segmented_extent(path)) is not None:
                    found[path] = extent.area
    return sorted(found, key=lambda path: (-found[path], path))


def _strips(plane: NDArray[Any]) -> Iterator[Strip]:
    for y in range(0, len(plane), _STRIP_ROWS):
        yield y, plane[y : y + _STRIP_ROWS].astype(np.int32)
