"""Owns reading and writing object tables as csv and parquet."""

import csv
from dataclasses import fields
from pathlib import Path

import numpy as np

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import atomic_path
from wsi_seg.postprocess.objects import ObjectTable

_COLUMNS = tuple(field.name for field in fields(ObjectTable))
_SUFFIXES = (".csv", ".parquet")
_UNITS = {"area": "um2", "perimeter": "um"}


def write_table(path: Path, table: ObjectTable, *, has_mpp: bool) -> None:
    """Write a table atomically.

    Parameters
    ----------
    path
        File to write, ``.csv`` or ``.parquet``.
    table
        The objects.
    has_mpp
        Whether lengths are in um; then the columns are named ``area_um2`` and ``perimeter_um``,
        else ``area_px2`` and ``perimeter_px``.

    Raises
    ------
    OutputError
        If the file cannot be written, or has another suffix.
    """
    if path.suffix not in _SUFFIXES:
        raise OutputError(f"got table {path.name!r}; expected a name ending with .csv or .parquet")
    columns = {_title(name, has_mpp=has_mpp): getattr(table, name) for name in _COLUMNS}
    with atomic_path(path) as partial:
        if path.suffix == ".csv":
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))
        else:
            import pyarrow
            import pyarrow.parquet

            arrays = {name: pyarrow.array(c.tolist()) for name, c in columns.items()}
            if not len(table):  # an empty list has no type
                arrays = {name: pyarrow.array(c.astype(c.dtype)) for name, c in columns.items()}
            # An open file, because pyarrow parses some paths as URIs.
            with partial.open("wb") as packed:
                pyarrow.parquet.write_table(pyarrow.table(arrays), packed)


def read_table(path: Path) -> ObjectTable:
    """Read a table written by `write_table`.

    Raises
    ------
    StoreError
        If the file is missing or damaged, or is not an object table.
    """
    try:
        rows = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
        columns: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]] = {}
        for name in _COLUMNS:
            title = next(t for t in (name, _title(name, True), _title(name, False)) if t in rows)
            kind = np.int64 if name == "id" else np.str_ if name == "class_name" else np.float64
            columns[name] = np.array(rows[title], dtype=kind)
        return ObjectTable(**columns)  # type: ignore[arg-type]
    except (OSError, ValueError, StopIteration) as error:
        raise StoreError(
            f"{path} is not an object table ({error}); write one with `wsi-seg export --table`"
        ) from error


def _title(name: str, has_mpp: bool) -> str:
    if name not in _UNITS:
        return name
    return f"{name}_{_UNITS[name] if has_mpp else _UNITS[name].replace('um', 'px')}"


def _read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise ValueError("the file is empty")
    return {title: [row[n] for row in rows[1:]] for n, title in enumerate(rows[0])}


def _read_parquet(path: Path) -> dict[str, list[object]]:
    import pyarrow.parquet

    found: dict[str, list[object]] = pyarrow.parquet.read_table(path).to_pydict()
    return found
