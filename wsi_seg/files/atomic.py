"""Owns atomic writes of files and folders, which a kill cannot leave incomplete.

On disks a temporary file or folder is renamed; in object stores the object that makes a folder
visible is written last. Network file systems need to support only rename and fsync.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path

from wsi_seg.errors import OutputError
from wsi_seg.files.address import is_remote, without_secrets
from wsi_seg.files.durable import sync, sync_tree
from wsi_seg.files.half_written import partial_path
from wsi_seg.files.object_folder import copy_folder
from wsi_seg.files.object_path import object_path

# NFS reports these for a folder whose removed files are still open on this machine.
_IN_USE = {errno.EBUSY, errno.ENOTEMPTY}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to the final name if the block succeeds.

    File and folder are synced to disk before it returns. After an error the old file, if any, is
    unchanged, and the temporary file is removed.

    Parameters
    ----------
    path
        Final path of the file; its folder is created if missing.

    Yields
    ------
    Path
        Hidden path in the same folder, unique to this process and thread; see `partial_path`.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.

    Examples
    --------
    >>> with atomic_path(folder / "scores.csv") as partial:  # doctest: +SKIP
    ...     frame.to_csv(partial)
    """
    require_writable(path)
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError) or isinstance(error, OutputError):
            raise  # not from writing this file
        raise OutputError.of(path, error) from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and rename it to the final name if the block succeeds.

    After an error the old folder, if any, is unchanged, and the temporary folder is removed.

    Parameters
    ----------
    path
        Final path of the folder; its parent is created if missing. An existing folder is replaced.

    Yields
    ------
    Path
        Empty folder in the same parent folder.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    require_writable(path)
    # Fixed names, so that the next process can remove what a killed one left.
    partial, old = (path.with_name(f".{path.name}.{mark}") for mark in ("partial", "old"))
    try:
        for left in (partial, old):  # from a killed process
            remove_tree(left)
        partial.mkdir(parents=True)
        with requiring_same(partial) as require_same:
            yield partial
            sync_tree(partial)
            require_same()
        if path.exists():
            path.rename(old)
        partial.rename(path)
        sync(path.parent)
        remove_tree(old)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError.of(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def requiring_same(folder: Path) -> Iterator[Callable[[], None]]:
    """Yield a check that raises if the folder was removed or replaced.

    This happens if the process was suspended so long that others assumed that it had exited.

    Parameters
    ----------
    folder
        Folder that this process created and will rename. Object stores are not checked.
    """
    if object_path(folder) is not None:
        yield lambda: None
        return
    gone = (
        f"{folder} was removed or replaced by another process, because this one did not respond "
        "for a minute and seemed to have ended; repeat the command"
    )
    try:
        descriptor = os.open(folder, os.O_RDONLY)  # keeps its inode number from being reused
    except FileNotFoundError as error:
        raise OutputError(gone) from error

    def require_same() -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return
        raise OutputError(gone)

    try:
        yield require_same
    finally:
        os.close(descriptor)


def require_writable(path: Path) -> None:
    """Raise an error for an address that cannot be written, before any work is done.

    Raises
    ------
    OutputError
        If the address is on a web server, or was not made by `place`.
    """
    if (remote := object_path(path)) is not None:
        if remote.is_read_only:
            raise OutputError(
                f"cannot write {path}: web servers are read-only; write to a folder, s3://, gs:// "
                "or az://"
            )
    elif is_remote(path):
        raise OutputError(
            f"cannot write {without_secrets(str(path))}: expected a folder of this machine; write "
            "to one, and copy the result to the address afterwards"
        )


def require_permission(path: Path) -> None:
    """Raise an error if a file cannot be created, before any work is done.

    Raises
    ------
    OutputError
        If the address, or the nearest existing folder of the path, cannot be written.
    """
    require_writable(path)
    folder = path.absolute().parent
    while object_path(path) is None and not folder.exists():
        folder = folder.parent
    if object_path(path) is None and not os.access(f"{folder}/.", os.W_OK):
        raise OutputError.of(path, OSError(errno.EACCES, f"{folder} is not a writable folder"))


def write_atomic(path: Path, content: bytes | str, *, sync_name: bool = True) -> None:
    """Write bytes, or text encoded as UTF-8, to a file atomically.

    Parameters
    ----------
    path
        The file; its folder is created if missing.
    content
        Content of the file.
    sync_name
        Whether to sync the folder too; pass False if the caller syncs it later.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    require_writable(path)
    try:
        if (remote := object_path(path)) is not None:  # writes of objects are atomic
            remote.write_bytes(data)
            return
        write_whole(path, data)
        if sync_name:
            sync(path.parent)
    except OSError as error:
        raise OutputError.of(path, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file on a disk under a temporary name, fsync it, and rename it.

    The folder is not synced: after writing many files to it, call `sync` once.

    Parameters
    ----------
    path
        The file; its folder is created if missing.
    data
        Content of the file.

    Raises
    ------
    OSError
        If it cannot be written; the temporary file is removed.
    """
    partial = partial_path(path)
    try:
        with _created(partial) as file:
            rest = memoryview(data)
            while rest:  # one system call writes at most 2 GB
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _created(path: Path) -> FileIO:
    """Open a file for writing; create its folder only if opening fails, as it usually exists."""
    try:
        return path.open("wb", buffering=0)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb", buffering=0)


def create_new(path: Path, content: bytes) -> bool:
    """Create a file that does not exist yet; only one of several processes succeeds.

    Returns
    -------
    bool
        Whether this call created it.

    Raises
    ------
    OSError
        If it cannot be written; FileNotFoundError if its folder was removed.
    """
    if (remote := object_path(path)) is not None:
        return remote.create(content)
    try:
        # O_EXCL is atomic on NFS and Lustre, too.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, content)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    return True


def append_line(path: Path, content: bytes) -> None:
    """Append lines to a file, created with its folder if missing, and fsync it.

    A line that a kill truncated stays as it is; new lines start on a line of their own.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    if (remote := object_path(path)) is not None:
        remote.append(content)
        return
    try:
        file = path.open("ab+")
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        file = path.open("ab+")
    with file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            content = content if file.read(1) == b"\n" else b"\n" + content
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def move_folder(
    path: Path, target: Path, *, last: str, first: str, without: Sequence[str] = ()
) -> None:
    """Rename a folder to a path that does not exist yet.

    In an object store the folder is copied within the store and then removed.

    Parameters
    ----------
    path, target
        The folder and its new path.
    last
        File that marks a folder as complete; it is copied last.
    first
        File that marks a folder as unfinished; it is removed first.
    without
        Files and folders of unfinished work, which are not copied in an object store.

    Raises
    ------
    OSError
        If the folder cannot be renamed, copied or removed.
    """
    source, copy = object_path(path), object_path(target)
    if source is None or copy is None:
        path.rename(target)
        sync(target.parent)
    else:
        copy_folder(source, copy, last=last, without=without)
        remove_folder(path, first=first)


def remove_folder(path: Path, *, first: str | None = None) -> None:
    """Remove a folder and its contents, if it exists.

    Parameters
    ----------
    path
        The folder.
    first
        File to remove first, so that a partly removed folder does not count as complete.

    Raises
    ------
    OSError
        If it cannot be removed.
    """
    if first is not None:
        (path / first).unlink(missing_ok=True)
    if (remote := object_path(path)) is None:
        remove_tree(path)
    elif found := remote.sizes():
        remote.remove_all(list(found))


def folder_bytes(path: Path) -> int:
    """Return the total size in bytes of all files in a folder."""
    if (remote := object_path(path)) is not None:
        return sum(remote.sizes().values())
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def remove_tree(folder: Path) -> None:
    """Remove a folder that is no longer used, if it exists.

    On NFS, files that this machine still has open remain until they are closed.

    Raises
    ------
    OSError
        If any other file cannot be removed.
    """

    def unless_in_use(_: object, __: str, error: BaseException) -> None:
        if not (isinstance(error, FileNotFoundError) or _errno(error) in _IN_USE):
            raise error

    shutil.rmtree(folder, onexc=unless_in_use)


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None
