"""Owns writing objects as COCO: polygons, and runs where an object has holes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import shapely
from shapely.geometry import Polygon

from wsi_seg.annotations import Annotation
from wsi_seg.atomic import atomic_path
from wsi_seg.classes import ClassEntry, ClassTable
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.rasterize import Rasterizer

Found = Iterable[tuple[ClassEntry, Polygon]]

_DRAWN = ClassTable.named(["drawn"])
_BAND_PX = 256


def write_coco(path: Path, images: Iterable[tuple[str, Extent, Found]], classes: ClassTable) -> int:
    """Write the objects of some slides, whole or not at all; return how many there were.

    Parameters
    ----------
    path
        File to write.
    images
        Name and level-0 size of each slide, and its objects in level-0 pixels; consumed one by one.
    classes
        Categories.
    """
    sizes: list[dict[str, object]] = []
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        count = _write(file, images, sizes)
        categories = [{"id": entry.id, "name": entry.name} for entry in classes]
        # Images come last: their list is complete only now, and JSON knows no order.
        file.write(f'\n], "categories": {json.dumps(categories)}, "images": {json.dumps(sizes)}}}')
    return count


def _write(
    file: IO[str],
    images: Iterable[tuple[str, Extent, Found]],
    sizes: list[dict[str, object]],
) -> int:
    count = 0
    file.write('{"annotations": [')
    for name, extent, objects in images:
        number = len(sizes) + 1
        sizes.append(
            {"id": number, "file_name": name, "height": extent.height, "width": extent.width}
        )
        for entry, polygon in objects:
            count += 1
            x, y, x_end, y_end = polygon.bounds
            row = {
                "id": count,
                "image_id": number,
                "category_id": entry.id,
                "area": polygon.area,
                "bbox": [x, y, x_end - x, y_end - y],
                "iscrowd": int(bool(polygon.interiors)),
                "segmentation": _segmentation(polygon, extent),
            }
            file.write((",\n" if count > 1 else "\n") + json.dumps(row))
    return count


def _segmentation(polygon: Polygon, extent: Extent) -> object:
    if not polygon.interiors:
        return [shapely.get_coordinates(polygon.exterior).ravel().tolist()]
    return {"size": [extent.height, extent.width], "counts": list(_counts(polygon, extent))}


def _counts(polygon: Polygon, extent: Extent) -> Iterator[int]:
    """Numbers of pixels outside and inside, by turns, down the columns of the whole image."""
    drawer = Rasterizer([Annotation(polygon, "drawn")], _DRAWN)
    left, top, right, bottom = polygon.bounds
    y, y_end = int(top), min(extent.height, int(np.ceil(bottom)))
    done, inside = 0, 0
    for x in range(int(left), min(extent.width, int(np.ceil(right))), _BAND_PX):
        width = min(_BAND_PX, extent.width - x)
        region = Region(level=0, y=y, x=x, height=y_end - y, width=width)
        drawn = drawer.draw(region, (1.0, 1.0)).T > 0
        padded = np.pad(drawn, ((0, 0), (1, 1)))
        column, row = np.nonzero(padded[:, 1:] != padded[:, :-1])
        places = (column + x) * extent.height + row + y
        for begin, end in places.reshape(-1, 2).tolist():
            if begin == done and inside:  # goes on from the column before
                inside += end - begin
            else:
                if inside:
                    yield inside
                yield begin - done
                inside = end - begin
            done = end
    yield inside
    yield extent.area - done
