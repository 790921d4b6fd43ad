"""Owns writing objects as GeoParquet 1.1: outlines as WKB, with columns of measurements."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.exporting.outlines import Batch, Outlines
from wsi_seg.files.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def write_geoparquet(path: Path, objects: Outlines) -> int:
    """Write objects as GeoParquet atomically, and return their number.

    The columns are ``id`` (a UUID as text), ``object`` (the number in object tables), ``class``,
    ``geometry`` and ``bbox`` in level-0 pixels, and measurements named with their unit as in object
    tables. Rows are written in groups, so memory holds one strip.

    Parameters
    ----------
    path
        File to write.
    objects
        Objects of one slide.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    import pyarrow.parquet

    schema = _schema(has_mpp=objects.label.pyramid.mpp is not None)
    names = np.array(["", *objects.classes.names], dtype=object)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    # An open file, because pyarrow parses some paths as URIs.
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for batch in objects.batches():
            bounds = shapely.bounds(batch.polygons)
            low = np.minimum(low, bounds[:, :2].min(axis=0))
            high = np.maximum(high, bounds[:, 2:].max(axis=0))
            writer.write_table(pyarrow.table(_columns(batch, names, bounds), schema=schema))
        box = [*low.tolist(), *high.tolist()] if len(objects) else None
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(box))})
    return len(objects)


def _schema(*, has_mpp: bool) -> "pyarrow.Schema":
    import pyarrow as pa

    unit = "um" if has_mpp else "px"
    number = pa.float64()
    return pa.schema(
        [
            ("id", pa.string()),
            ("object", pa.int64()),
            ("class", pa.string()),
            ("geometry", pa.binary()),
            ("bbox", pa.struct([(side, number) for side in _SIDES])),
            (f"area_{unit}2", number),
            (f"perimeter_{unit}", number),
            ("circularity", number),
            ("solidity", number),
            ("eccentricity", number),
            ("mean_probability", number),
            ("max_probability", number),
        ]
    )


def _columns(batch: Batch, names: NDArray[np.object_], bounds: NDArray[np.float64]) -> list[Any]:
    """Columns in the order of the schema."""
    import pyarrow as pa

    return [
        pa.array(batch.uuid),
        batch.number,
        pa.array(names[batch.class_id]),
        pa.array(shapely.to_wkb(batch.polygons)),
        pa.StructArray.from_arrays(list(bounds.T), names=_SIDES),
        *batch.figures.values(),
    ]


def _metadata(box: list[float] | None) -> dict[str, object]:
    """Build the ``geo`` metadata of the file."""
    column: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None,  # pixel coordinates, not geographic
        "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
    }
    if box is not None:
        column["bbox"] = box
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
