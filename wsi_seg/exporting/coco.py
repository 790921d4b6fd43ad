"""Owns streaming objects to COCO: polygons, or run-length encoding for objects with holes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import shapely
from shapely.geometry import Polygon

from wsi_seg.annotations import Annotation
from wsi_seg.classes import ClassTable
from wsi_seg.exporting.outlines import Outlines
from wsi_seg.files.atomic import atomic_path
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.rasterize import Rasterizer

_DRAWN = ClassTable.named(["drawn"])
_BAND_PX = 256


def write_coco(
    path: Path, images: Iterable[tuple[str, Outlines]], classes: ClassTable
) -> dict[str, int]:
    """Write the objects of several slides to one file atomically, and return their numbers.

    The score of an object is its mean probability, if that is known.

    Parameters
    ----------
    path
        File to write.
    images
        File name and objects of each slide; consumed one by one.
    classes
        Written as categories.

    Returns
    -------
    dict[str, int]
        Number of objects by file name.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    sizes: list[dict[str, object]] = []
    counts: dict[str, int] = {}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for name, objects in images:
            extent, image = objects.place.extent, len(sizes) + 1
            sizes.append(
                {"id": image, "file_name": name, "height": extent.height, "width": extent.width}
            )
            _write(file, objects, image, done=sum(counts.values()))
            counts[name] = len(objects)
        categories = [{"id": entry.id, "name": entry.name} for entry in classes]
        # Images come last because their list is complete only now; order has no meaning in JSON.
        file.write(f'\n], "categories": {json.dumps(categories)}, "images": {json.dumps(sizes)}}}')
    return counts


def _write(file: IO[str], objects: Outlines, image: int, *, done: int) -> None:
    extent = objects.place.extent
    for batch in objects.batches():
        rows = zip(
            batch.class_id.tolist(),
            batch.polygons,
            batch.figures["mean_probability"].tolist(),
            strict=True,
        )
        for class_id, polygon, score in rows:
            file.write(",\n" if done else "\n")
            done += 1
            x, y, x_end, y_end = polygon.bounds
            row = {
                "id": done,
                "image_id": image,
                "category_id": class_id,
                "area": polygon.area,
                "bbox": [x, y, x_end - x, y_end - y],
                "iscrowd": 0,
                "segmentation": _segmentation(polygon, extent),
            }
            file.write(json.dumps(row if np.isnan(score) else {**row, "score": round(score, 4)}))


def _segmentation(polygon: Polygon, extent: Extent) -> object:
    if not polygon.interiors:
        return [shapely.get_coordinates(polygon.exterior).ravel().tolist()]
    return {"size": [extent.height, extent.width], "counts": list(_counts(polygon, extent))}


def _counts(polygon: Polygon, extent: Extent) -> Iterator[int]:
    """Yield the lengths of alternating background and object runs, in column-major order."""
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
            if begin == done and inside:  # continues the run of the previous column
                inside += end - begin
            else:
                if inside:
                    yield inside
                yield begin - done
                inside = end - begin
            done = end
    yield inside
    yield extent.area - done
