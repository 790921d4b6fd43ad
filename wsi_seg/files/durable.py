"""Owns waiting until files, and the names of files in folders, are on the disk."""

import errno
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsi_seg.files.object_path import object_path

# Files whose way to the disk is waited for at a time.
_SYNCS = 8

# What file systems say that write the names of a folder at once, and offer no fsync of it (SMB).
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF}


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if object_path(path) is not None:  # what an object store took is kept
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Wait until files, and the lists of names in folders, are on the disk; see `sync`."""
    with ThreadPoolExecutor(_SYNCS) as threads:
        list(threads.map(sync, paths))


def sync_tree(folder: Path) -> None:
    """Wait until a folder with all that is in it is on the disk."""
    walked = [(inside, files) for inside, _, files in folder.walk()]
    sync_all([inside / name for inside, files in walked for name in (*files, ".")])
