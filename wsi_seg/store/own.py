"""Owns the folder of a group in which wsi_seg keeps files that zarr does not know."""

import json
from contextlib import suppress
from pathlib import Path

from wsi_seg.files.atomic import write_atomic
from wsi_seg.store.names import METADATA, OWN

_EMPTY_ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [0],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [{"name": "bytes"}],
    "attributes": {"wsi_seg": "an empty array: zarr looks for no members next to its files"},
}
# What zarr reads of such a folder.
EMPTY_ARRAY = json.dumps(_EMPTY_ARRAY, indent=1).encode()


def make_own_folder(group: Path) -> None:
    """Make a group's folder for our own files, as an empty array; keep one that exists.

    That its name is on the disk is left to whoever needs what is put into it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    file = group / OWN / METADATA
    if not file.is_file():
        write_atomic(file, EMPTY_ARRAY, sync_name=False)


def remove_own_folder(group: Path) -> None:
    """Remove a group's folder for our own files, unless others are in it, as of a live command."""
    (group / OWN / METADATA).unlink(missing_ok=True)
    with suppress(OSError):
        (group / OWN).rmdir()


def own_file(group: Path, name: str) -> Path:
    """Path of one of our files on a disk: where it is, or where stores had it at first.

    Parameters
    ----------
    group
        Folder of an image or a label.
    name
        Such as `names.DIGESTS`. Stores used to have it next to the metadata, where zarr warns.
    """
    path, before = group / name, group / Path(name).name
    return before if before.is_file() and not path.is_file() else path
