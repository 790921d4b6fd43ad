"""Owns the metadata files of zarr groups, and the list of labels of a slide."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.half_written import LONGEST_NAME, remove_partials
from wsi_seg.files.object_path import object_path
from wsi_seg.store.arrays import read_json
from wsi_seg.store.names import METADATA


def write_group(path: Path, attributes: Mapping[str, object], *, sync_name: bool = True) -> None:
    """Write the metadata of a group; see `write_atomic`.

    Raises
    ------
    OutputError
        If the metadata cannot be written.
    """
    write_atomic(path / METADATA, group_document(attributes), sync_name=sync_name)


def group_document(attributes: Mapping[str, object]) -> bytes:
    """Return the ``zarr.json`` of a group."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(document, indent=1, allow_nan=False).encode()


def require_label_name(name: str) -> None:
    """Raise an error for a label name that is not a valid folder name.

    Raises
    ------
    OutputError
        If it is empty, a path, hidden, longer than 255 bytes, or the name of a store's own file.
    """
    taken = name in {"", "zarr.json"} or name.startswith(".")
    if taken or "/" in name or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise OutputError(
            f"got the label name {name!r}; expected the name of a folder: no '/' in it, no dot at "
            f"its begin, at most {LONGEST_NAME} bytes"
        )


def list_label(labels: Path, name: str) -> None:
    """Add a label to the list in the group ``labels``."""
    listed = label_list(labels)
    if name not in listed:
        _write_label_list(labels, [*listed, name])


def unlist_label(labels: Path, name: str) -> None:
    """Remove a label from the list in the group ``labels``."""
    listed = label_list(labels)
    if name in listed:
        _write_label_list(labels, [other for other in listed if other != name])


def _write_label_list(labels: Path, names: Sequence[str]) -> None:
    write_group(labels, {"ome": {"version": "0.5", "labels": sorted(names)}})
    if object_path(labels) is None:
        remove_partials([labels / METADATA])


def label_list(labels: Path) -> list[str]:
    """Return the names that the group ``labels`` lists; empty if there is no such group."""
    file = labels / METADATA
    if not file.is_file():
        return []
    attributes = read_json(file).get("attributes")
    ome = attributes.get("ome") if isinstance(attributes, dict) else None
    names = ome.get("labels") if isinstance(ome, dict) else None
    listed = [str(name) for name in names] if isinstance(names, list) else []
    for name in listed:
        if name in {"", ".", ".."} or Path(name).name != name:
            raise StoreError(f"{file}: got a label {name!r}; expected the name of a folder in it")
    return listed
