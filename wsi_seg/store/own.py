"""Owns the folder inside a group for files of wsi_seg that are not part of zarr."""

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
# Makes zarr treat the folder as an array, without warnings about other files.
EMPTY_ARRAY = json.dumps(_EMPTY_ARRAY, indent=1).encode()


def make_own_folder(group: Path) -> None:
    """Create a group's folder for our own files, as an empty array, unless it exists.

    The parent folder is not synced; callers that need this call `sync`.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    file = group / OWN / METADATA
    if not file.is_file():
        write_atomic(file, EMPTY_ARRAY, sync_name=False)


def remove_own_folder(group: Path) -> None:
    """Remove a group's folder for our own files if no other files are in it."""
    (group / OWN / METADATA).unlink(missing_ok=True)
    with suppress(OSError):
        (group / OWN).rmdir()


def own_file(group: Path, name: str) -> Path:
    """Return the local path of one of our files, also in stores of earlier versions.

    Parameters
    ----------
    group
        Folder of an image or a label.
    name
        Path in the group, such as `names.DIGESTS`. Earlier versions kept it next to ``zarr.json``.
    """
    path, before = group / name, group / Path(name).name
    return before if before.is_file() and not path.is_file() else path
