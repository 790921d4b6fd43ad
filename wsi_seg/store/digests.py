"""Owns the digests of all files of a finished group.

A digest is the crc32c of a file, followed by its last four bytes. The index of a shard ends with
its own crc32c, and the crc32c of data followed by their crc32c is constant; so the crc32c alone
would not depend on the index. Digests detect damage by disks and copies, not manipulation. Labels
have their own digests, so those of the slide do not change with them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.half_written import is_half_written
from wsi_seg.files.object_path import REQUESTS
from wsi_seg.store.arrays import read_json
from wsi_seg.store.names import DIGESTS, JOURNAL, LABELS, METADATA, OWN
from wsi_seg.store.own import EMPTY_ARRAY, make_own_folder, own_file
from wsi_seg.store.shards import END_BYTES, checksum_and_end, checksum_and_end_of

ALGORITHM = "crc32c+tail"

OWN_METADATA = f"{OWN}/{METADATA}"

# Smaller checksums come from journals of earlier versions: a crc32c alone.
_LEAST = 1 << 8 * END_BYTES


def write_digests(
    group: Path, known: Mapping[str, int] | None = None, *, files: Sequence[str] | None = None
) -> list[str]:
    """Write the digests of a group's files, and of its labels without digests.

    Parameters
    ----------
    group
        Folder of a finished image or label.
    known
        `shard_checksum` of files by relative path, computed when they were written, including
        those of labels. These files are not read again.
    files
        Relative paths of all files in the group; None to list them.

    Returns
    -------
    list[str]
        Relative paths of the files written, whose folders are not synced yet.

    Raises
    ------
    OutputError
        If a file cannot be read, is missing although its checksum is known, or the digests cannot
        be written.
    """
    taken, inside, written = known or {}, files_in(group) if files is None else files, [DIGESTS]
    if lost := sorted(taken.keys() - set(inside)):
        raise OutputError(f"{group / lost[0]} was written, but does not exist; repeat the command")
    folders = {tuple(name.split("/")[:2]) for name in inside if name.count("/") > 1}
    for label in sorted(name for first, name in folders if first == LABELS):
        prefix = f"{LABELS}/{label}/"
        theirs = [name.removeprefix(prefix) for name in inside if name.startswith(prefix)]
        if not {DIGESTS, Path(DIGESTS).name}.intersection(theirs):
            of_label = {
                name.removeprefix(prefix): checksum
                for name, checksum in taken.items()
                if name.startswith(prefix)
            }
            made = write_digests(group / prefix, of_label, files=theirs)
            written += [f"{prefix}{name}" for name in made]
    names = sorted(filter(_decides, inside))
    try:
        with ThreadPoolExecutor(REQUESTS) as threads:
            every = threads.map(lambda one: file_digest(group / one, taken.get(one)), names)
            found = dict(zip(names, every, strict=True))
    except OSError as error:
        raise OutputError.of(group, error, step="take digests of") from error
    if OWN_METADATA not in found:
        make_own_folder(group)
        found[OWN_METADATA] = _spelled(*checksum_and_end_of(EMPTY_ARRAY))
    document = {"algorithm": ALGORITHM, "files": dict(sorted(found.items()))}
    write_atomic(group / DIGESTS, json.dumps(document, indent=0), sync_name=False)
    return written


def _decides(name: str) -> bool:
    """Return whether a file, by its path in its group, is data or metadata of the group."""
    first, *rest = name.split("/")
    if is_half_written(name):
        return False
    if first == OWN:  # the order of lines in a journal is not deterministic
        return len(rest) == 1 and name not in (DIGESTS, JOURNAL)
    return not rest or not (first == LABELS or first.startswith("."))


def file_digest(path: Path, checksum: int | None = None) -> str:
    """Return the digest of a file; empty if the file does not exist.

    Parameters
    ----------
    path
        The file.
    checksum
        Its `shard_checksum`, if known; otherwise the whole file is read.
    """
    if checksum is not None and checksum >= _LEAST:
        return f"{checksum:016x}"
    found = checksum_and_end(path)
    return "" if found is None else _spelled(*found)


def _spelled(crc: int, end: bytes) -> str:
    return f"{crc:08x}{end.hex()}"


def read_digests(group: Path) -> dict[str, str] | None:
    """Read the digests of a group by relative path; None if it has no digests.

    Raises
    ------
    StoreError
        If the digests are damaged.
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
    """Return a hash of a finished group without its labels; empty if it has no digests."""
    for name in (DIGESTS, Path(DIGESTS).name):  # now, and in earlier versions
        with suppress(FileNotFoundError):
            return hashlib.sha256((group / name).read_bytes()).hexdigest()
    return ""


def group_files(group: Path) -> Iterator[str]:
    """Iterate over the relative paths of a group's data and metadata files.

    Excludes its digests, journal and labels, unfinished work and partially written files.
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
        paths = ((folder / name).relative_to(group).as_posix() for name in files)
        yield from filter(_decides, paths)


def files_in(group: Path) -> list[str]:
    """Return the relative paths of all files of a group."""
    walked = ((folder, name) for folder, _, names in group.walk() for name in names)
    return [(folder / name).relative_to(group).as_posix() for folder, name in walked]
