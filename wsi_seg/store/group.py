"""Owns the metadata files of zarr groups: our attributes, and the list of labels of a slide."""

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

# Increased with each incompatible change; version 2 made attributes typed.
FORMAT = 2


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


def create_group(path: Path, attributes: Mapping[str, object]) -> None:
    """Write the metadata of a group without arrays, such as a prediction of class ids only.

    Parameters
    ----------
    path
        Group folder.
    attributes
        Plain JSON values to store under ``wsi_seg``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_group(path, own_attributes(attributes))


def update_attributes(path: Path, attributes: Mapping[str, object]) -> None:
    """Add or replace JSON values in the ``wsi_seg`` attributes of a group."""
    document = read_json(path / METADATA)
    known = document.get("attributes")
    ome = known.get("ome") if isinstance(known, dict) else None
    ours = own_attributes({**attributes_of(document, path), **attributes})
    # Its folder is synced already, or `commit` syncs it.
    write_group(path, ours if ome is None else {"ome": ome, **ours}, sync_name=False)


def wsi_seg_attributes(file: Path) -> Mapping[str, object]:
    """Read the ``wsi_seg`` attributes of a group; empty if there are none.

    Raises
    ------
    StoreError
        If the file cannot be read, or was written in another format.
    """
    return attributes_of(read_json(file), file.parent)


def attributes_of(document: Mapping[str, object], group: Path) -> Mapping[str, object]:
    """Return the ``wsi_seg`` attributes in the metadata of a group; see `wsi_seg_attributes`."""
    attributes = document.get("attributes")
    found = attributes.get("wsi_seg") if isinstance(attributes, dict) else None
    if not isinstance(found, dict):
        return {}
    if found.get("format") != FORMAT:
        raise StoreError(
            f"{group} was written in format {found.get('format', 'before 2')}; this version "
            f"of wsi_seg reads format {FORMAT}; make it again: slides with `wsi-seg tile`, their "
            "labels with `wsi-seg annotate`, predictions with `wsi-seg infer`"
        )
    return {name: value for name, value in found.items() if name != "format"}


def own_attributes(ours: Mapping[str, object]) -> dict[str, object]:
    """Return attributes of a zarr group that contain those of wsi_seg."""
    return {"wsi_seg": {**ours, "format": FORMAT}}


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
