"""Owns the digests of a finished group: a crc32c of each of its files, noted when it is finished.

They find what disks and copies damage, not what somebody forges. A label has its own, so a slide's
digests stay the same while labels come and go.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.store.arrays import read_json
from wsi_seg.store.remote import is_address
from wsi_seg.store.shards import shard_checksum

NAME = "digests.json"


def write_digests(group: Path, known: Mapping[str, int] | None = None) -> None:
    """Note the digests of a group's files, and of its labels that have none.

    Parameters
    ----------
    group
        Folder of an image or a label that will not change any more.
    known
        crc32c of files whose digests were taken when they were written, by their relative paths.

    Raises
    ------
    OutputError
        If a file cannot be read, or the digests cannot be written.
    """
    labels = group / "labels"
    if labels.is_dir():
        for label in sorted(labels.iterdir()):
            if label.is_dir() and not (label / NAME).is_file():
                write_digests(label)
    found = dict(known or {})
    try:
        for name in group_files(group):
            if name not in found:
                checksum = shard_checksum(group / name)
                found[name] = 0 if checksum is None else checksum
        document = {"algorithm": "crc32c", "files": dict(sorted(found.items()))}
        (group / NAME).write_text(json.dumps(document, indent=0), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {group / NAME}: {error.strerror or error}") from error


def read_digests(group: Path) -> dict[str, int] | None:
    """Read the digests of a group; None if it was written before digests were kept.

    Raises
    ------
    StoreError
        If they are damaged.
    """
    if not (group / NAME).is_file():
        return None
    document = read_json(group / NAME)
    files = document.get("files")
    if document.get("algorithm") != "crc32c" or not isinstance(files, dict):
        raise StoreError(f"{group / NAME}: got no digests; expected the crc32c of each file")
    for name, checksum in files.items():
        if not isinstance(checksum, int) or ".." in Path(name).parts or Path(name).is_absolute():
            raise StoreError(
                f"{group / NAME}: got {name!r}: {checksum!r}; expected a file's crc32c"
            )
    return files


def store_digest(group: Path) -> str:
    """Name the content of a finished group, its labels aside; empty where digests are not kept."""
    if is_address(group) or not (group / NAME).is_file():
        return ""
    return hashlib.sha256((group / NAME).read_bytes()).hexdigest()


def group_files(group: Path) -> Iterator[str]:
    """Relative paths of the files of a group: not its digests, its labels, nor unfinished work."""
    for folder, folders, files in group.walk():
        if folder == group:
            folders[:] = [name for name in folders if name != "labels" and not name.startswith(".")]
        for name in files:
            path = (folder / name).relative_to(group).as_posix()
            if path != NAME:
                yield path
