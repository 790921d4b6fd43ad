"""Owns the object table of a label: position, size and class of each annotated structure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.annotations import Annotation
from wsi_seg.errors import StoreError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.json_text import parse_json
from wsi_seg.store import SlideStore
from wsi_seg.store.names import LABELS, OBJECTS


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Object table of one label, in drawing order.

    Parameters
    ----------
    bbox
        Bounding boxes, ``(n, 4)`` float64: y, x, y_end, x_end in level-0 pixels.
    centroid
        Centroids, ``(n, 2)`` float64: y, x in level-0 pixels.
    area
        Areas, ``(n,)`` float64, in um², or in level-0 px² if the slide's mpp is unknown.
    class_name, source
        Text, ``(n,)``.
    weight
        Weights in training, ``(n,)`` float64, 0 to 1.
    lesion
        Lesion of which each is a section, ``(n,)`` text, see `annotations.model.Lesion`; empty for
        structures of a single image.
    diameter_mm
        Diameter of the lesion in mm, ``(n,)`` float64; NaN without a lesion.
    """

    bbox: NDArray[np.float64]
    centroid: NDArray[np.float64]
    area: NDArray[np.float64]
    class_name: NDArray[np.str_]
    source: NDArray[np.str_]
    weight: NDArray[np.float64]
    lesion: NDArray[np.str_]
    diameter_mm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.area)


def measure_objects(items: Sequence[Annotation], mpp: float | None) -> Objects:
    """Measure annotations; ``mpp`` is that of the slide's level 0."""
    geometries = np.array([item.geometry for item in items], dtype=object)
    x, y, x_end, y_end = shapely.bounds(geometries).reshape(-1, 4).T
    centres = shapely.get_coordinates(shapely.centroid(geometries)).reshape(-1, 2)
    lesions = [item.lesion for item in items]
    return Objects(
        bbox=np.stack([y, x, y_end, x_end], axis=1),
        centroid=centres[:, ::-1].copy(),
        area=shapely.area(geometries).astype(np.float64) * (1.0 if mpp is None else mpp**2),
        class_name=np.array([item.class_name for item in items], dtype=np.str_),
        source=np.array([item.source for item in items], dtype=np.str_),
        weight=np.array([item.weight for item in items], dtype=np.float64),
        lesion=np.array([one.name if one else "" for one in lesions], dtype=np.str_),
        diameter_mm=np.array(
            [one.diameter_mm if one else np.nan for one in lesions], dtype=np.float64
        ),
    )


def write_objects(label: Path, objects: Objects) -> None:
    """Write the table to the label's folder of additional files."""
    columns = {
        "bbox": objects.bbox.round(3).tolist(),
        "centroid": objects.centroid.round(3).tolist(),
        "area": objects.area.tolist(),
        "class_name": objects.class_name.tolist(),
        "source": objects.source.tolist(),
        "weight": objects.weight.tolist(),
    }
    if objects.lesion.any():
        columns |= {
            "lesion": objects.lesion.tolist(),
            "diameter_mm": [None if np.isnan(d) else d for d in objects.diameter_mm.tolist()],
        }
    write_atomic(label / OBJECTS, json.dumps(columns))


def read_objects(store: SlideStore, label: str) -> Objects:
    """Read the object table of a label.

    Raises
    ------
    StoreError
        If there is no table, or it is damaged.
    """
    group = store.path / LABELS / label
    try:
        try:
            content = (group / OBJECTS).read_bytes()
        except FileNotFoundError:  # old stores have it next to the metadata
            content = (group / Path(OBJECTS).name).read_bytes()
        columns: Any = parse_json(content)
        count = len(columns["area"])
        objects = Objects(
            bbox=np.array(columns["bbox"], dtype=np.float64).reshape(count, 4),
            centroid=np.array(columns["centroid"], dtype=np.float64).reshape(count, 2),
            area=np.array(columns["area"], dtype=np.float64),
            class_name=np.array(columns["class_name"], dtype=np.str_).reshape(count),
            source=np.array(columns["source"], dtype=np.str_).reshape(count),
            weight=np.array(columns.get("weight", [1.0] * count), dtype=np.float64).reshape(count),
            lesion=np.array(columns.get("lesion", [""] * count), dtype=np.str_).reshape(count),
            diameter_mm=np.array(
                columns.get("diameter_mm", [None] * count), dtype=np.float64
            ).reshape(count),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"slide {store.name!r}: the object table of label {label!r} cannot be read ({error}); "
            "run `wsi-seg annotate` again"
        ) from error
    return objects
