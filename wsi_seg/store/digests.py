"""Owns the digests of a finished group: one of each of its files, stored when it is finished.

A digest is the file's crc32c, then its last four bytes. The index of a shard ends with a crc32c of
its own, and a checksum over bytes that end with their own checksum is the same for all of them; so
the crc32c alone would not see the index. Digests find what disks and copies damage, not
forgery. A label has its own, so a slide's stay the same while labels come and go.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsi_seg.atomic import write_atomic
from wsi_seg.errors import OutputError, StoreError
from wsi_seg.half_written import is_half_written
from wsi_seg.object_path import REQUESTS, object_path
from wsi_seg.store.arrays import read_json
from wsi_seg.store.names import DIGESTS, JOURNAL, LABELS, OWN
from wsi_seg.store.own import make_own_folder, own_file
from wsi_seg.store.shards import shard_checksum

ALGORITHM = "crc32c+tail"

_TAIL_BYTES = 4


def write_digests(group: Path, known: Mapping[str, int] | None = None) -> None:
    """Write the digests of a group's files, and of its labels that have none.

    Parameters
    ----------
    group
        Folder of an image or a label that will not change any more.
    known
        crc32c of files that was taken when they were written, by their relative paths; those of
        labels too. These files are not read again.

    Raises
    ------
    OutputError
        If a file cannot be read, or the digests cannot be written.
    """
    labels = group / LABELS
    taken = known or {}
    if labels.is_dir():
        for label in sorted(labels.iterdir()):
            if label.is_dir() and not own_file(label, DIGESTS).is_file():
                write_digests(label, _inside(f"{LABELS}/{label.name}/", taken))
    make_own_folder(group)
    taken = {name: crc for name, crc in taken.items() if not name.startswith(f"{LABELS}/")}
    try:
        names = sorted({*group_files(group), *taken})
        with ThreadPoolExecutor(REQUESTS) as threads:
            every = threads.map(lambda one: file_digest(group / one, crc=taken.get(one)), names)
            found = dict(zip(names, every, strict=True))
    except OSError as error:
        raise OutputError(f"cannot take digests of {group}: {error.strerror or error}") from error
    document = {"algorithm": ALGORITHM, "files": found}
    write_atomic(group / DIGESTS, json.dumps(document, indent=0))


def _inside(folder: str, known: Mapping[str, int]) -> dict[str, int]:
    """Pick what is known of the files of a folder, by their paths inside it."""
    return {
        name.removeprefix(folder): crc for name, crc in known.items() if name.startswith(folder)
    }


def file_digest(path: Path, *, crc: int | None = None) -> str:
    """Take the digest of a file; empty if there is none.

    Parameters
    ----------
    path
        The file.
    crc
        Its crc32c if that is known; else the whole file is read.
    """
    checksum = shard_checksum(path) if crc is None else crc
    if checksum is None:
        return ""
    if (remote := object_path(path)) is not None:
        return f"{checksum:08x}{remote.read_end(_TAIL_BYTES)[0].hex()}"
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return f"{checksum:08x}{file.read().hex()}"


def read_digests(group: Path) -> dict[str, str] | None:
    """Read the digests of a group; None if it was written before digests were kept.

    Raises
    ------
    StoreError
        If they are damaged.
    """
    path = own_file(group, DIGESTS)
    if not path.is_file():
        return None
    document = read_json(path)
    files = document.get("files")
    if document.get("algorithm") != ALGORITHM or not isinstance(files, dict):
        raise StoreError(f"{path}: got no digests; expected one of each file")
    for name, digest in files.items():
        if not isinstance(digest, str) or ".." in Path(name).parts or Path(name).is_absolute():
            raise StoreError(f"{path}: got {name!r}, {digest!r}; expected a digest")
    return files


def store_digest(group: Path) -> str:
    """Name the content of a finished group without its labels; empty where digests are not kept."""
    try:
        return hashlib.sha256(own_file(group, DIGESTS).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def group_files(group: Path) -> Iterator[str]:
    """Relative paths of the files of a group that decide its pixels or describe them.

    Its digests, its journal, its labels, unfinished work and what is half written are left out.
    """
    for folder, folders, files in group.walk():
        if folder == group:
            folders[:] = [
                name
                for name in folders
                if name == OWN or (name != LABELS and not name.startswith("."))
            ]
        elif folder == group / OWN:
            folders.clear()
        for name in files:
            path = (folder / name).relative_to(group).as_posix()
            # Lines of a journal are in the order in which workers were done.
            if path not in (DIGESTS, JOURNAL) and not is_half_written(name):
                yield path
