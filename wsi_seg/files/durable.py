"""Owns fsync of files and folders."""

import errno
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsi_seg.files.object_path import object_path

# Concurrent fsync calls.
_SYNCS = 8

# Reported by file systems that do not support fsync of a folder and do not need it (SMB).
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF}


def sync(path: Path) -> None:
    """Fsync a file, or the directory entries of a folder."""
    if object_path(path) is not None:  # accepted objects are durable
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
    """Fsync files and folders concurrently; see `sync`."""
    with ThreadPoolExecutor(_SYNCS) as threads:
        list(threads.map(sync, paths))


def sync_tree(folder: Path) -> None:
    """Fsync a folder and everything in it."""
    walked = [(inside, files) for inside, _, files in folder.walk()]
    sync_all([inside / name for inside, files in walked for name in (*files, ".")])
