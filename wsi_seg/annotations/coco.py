"""Owns reading COCO JSON: many images per file, outlines as polygons or RLE."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from wsi_seg.annotations.model import AnnotationSets, Collector, polygon, repair, require_repairable
from wsi_seg.annotations.names import SlideNames
from wsi_seg.annotations.rle import Runs, outline_runs, require_inside
from wsi_seg.annotations.sizes import stated_extent
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent


def is_coco(document: object) -> bool:
    """Return whether parsed JSON looks like COCO."""
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def read_coco(path: Path, document: Mapping[str, object], slides: Iterable[str]) -> AnnotationSets:
    """Read the annotations of all images.

    Parameters
    ----------
    path
        The file, for messages.
    document
        The parsed JSON.
    slides
        Names of the slides.

    Raises
    ------
    AnnotationError
        If two images match one slide, or an entry cannot be read.
    """
    images = {
        number: _image(path, number, entry)
        for number, entry in _by_id(path, document, "images").items()
    }
    classes = {
        number: str(entry.get("name"))
        for number, entry in _by_id(path, document, "categories").items()
    }
    collectors = {number: Collector(path) for number in images}
    for number, entry in enumerate(_list(path, document, "annotations")):
        name = f"annotation {number}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if image not in images or category not in classes:
            raise AnnotationError(
                f"{path}: {name}: got image {image!r} and category {category!r}; expected ids that "
                "the file lists"
            )
        geometry, cut = _geometry(path, name, entry.get("segmentation"), images[image][1])
        collectors[image].add(name, geometry, classes[category], "expert")
        if cut:
            collectors[image].repairs.append(f"{name}: {cut}")
    names = [name for name, _ in images.values()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    matched, unmatched = SlideNames(slides).assign(path, names)
    if doubled := [name for name in twice if name in matched]:
        raise AnnotationError(f"{path} lists the image {doubled[0]!r} twice; expected it once")
    found = {
        matched[name]: collectors[number].result(extent)
        for number, (name, extent) in images.items()
        if name in matched
    }
    return AnnotationSets(found, tuple(unmatched))


def _list(path: Path, document: Mapping[str, object], key: str) -> list[dict[str, object]]:
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise AnnotationError(f"{path}: got no list of {key}; expected COCO's")
    return found


def _key(path: Path, entry: Mapping[str, object], key: str) -> object:
    found = entry.get(key)
    if not isinstance(found, int | str):
        raise AnnotationError(f"{path}: got {key} {found!r}; expected a number")
    return found


def _by_id(
    path: Path, document: Mapping[str, object], key: str
) -> dict[object, Mapping[str, object]]:
    found: dict[object, Mapping[str, object]] = {}
    for entry in _list(path, document, key):
        number = _key(path, entry, "id")
        if number in found:
            raise AnnotationError(f"{path}: got the id {number!r} twice in {key}; expected it once")
        found[number] = entry
    return found


def _image(path: Path, number: object, entry: Mapping[str, object]) -> tuple[str, Extent]:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise AnnotationError(f"{path}: image {number!r} has no file_name; expected a name")
    place = f"{path}: image {name!r}"
    return name, stated_extent(place, entry.get("height"), entry.get("width"))


def _geometry(path: Path, name: str, value: object, extent: Extent) -> tuple[BaseGeometry, str]:
    """Return the outline of a segmentation, and what is missing from it (empty if complete)."""
    if isinstance(value, list):
        flat = [ring for ring in value if isinstance(ring, list)]
        if len(flat) != len(value) or any(len(ring) % 2 for ring in flat):
            raise AnnotationError(f"{path}: {name}: got a segmentation that is not x, y pairs")
        rings = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in flat]
        # COCO has no holes: an object is the union of its parts.
        parts = [polygon(path, name, [ring]) for ring in rings]
        for part in parts:
            require_repairable(path, name, part)
        return shapely.union_all([repair(part) for part in parts]), ""
    if not isinstance(value, dict) or value.get("size") != [extent.height, extent.width]:
        size = value.get("size") if isinstance(value, dict) else value
        raise AnnotationError(
            f"{path}: {name}: got a segmentation of {str(size)[:60]}; expected polygons, or RLE of "
            f"size {[extent.height, extent.width]}"
        )
    try:
        counts = _counts(value.get("counts"))
        runs = require_inside(_runs(counts), extent)
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {name}: {error}") from error
    counted = int(counts.sum())
    cut = f"its RLE ends at pixel {counted} of {extent.area}; the rest is background"
    return MultiPolygon(outline_runs(runs, extent.height)), cut if counted < extent.area else ""


def _counts(counts: object) -> NDArray[np.int64]:
    """Read counts from a list, or from COCO's compressed string."""
    if isinstance(counts, str):
        numbers = _decode_counts(counts)
    elif isinstance(counts, list) and all(isinstance(count, int) for count in counts):
        try:
            numbers = np.array(counts, dtype=np.int64)
        except OverflowError as error:
            raise AnnotationError("got RLE counts beyond the size of any image") from error
    else:
        raise AnnotationError(f"got RLE counts {str(counts)[:40]}; expected numbers or a string")
    if (numbers < 0).any():
        raise AnnotationError("got RLE counts below 0")
    return numbers


def _runs(counts: NDArray[np.int64]) -> Runs:
    """Convert counts, which alternate between background and object, to runs."""
    ends = np.cumsum(counts)
    if (ends < 0).any():
        raise AnnotationError("got RLE counts beyond the size of any image")
    inside = np.stack([ends[: len(ends) // 2 * 2 : 2], ends[1::2]], axis=1)
    return inside[inside[:, 1] > inside[:, 0]]


def _decode_counts(text: str) -> Runs:
    """Decode COCO's string: 5 bits per character; from the fourth count on, deltas to n - 2."""
    numbers: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise AnnotationError(f"got compressed RLE {text[:40]!r}; expected COCO's characters")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise AnnotationError("got compressed RLE that ends within a number")
    return np.array(numbers, dtype=np.int64)
