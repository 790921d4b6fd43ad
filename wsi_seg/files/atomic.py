"""Owns writing a file or a folder whole or not at all, so that it outlives a kill.

On disks that is done by renaming, in object stores by writing what makes a folder visible last.
Of a network file system only renames and fsyncs are relied on.
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

# What NFS says of a folder from which a file was removed that this machine has open.
_IN_USE = {errno.EBUSY, errno.ENOTEMPTY}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the final name when the block ends well.

    File and folder are on the disk when it returns. After an error the old file, if there was
    one, is as it was, and nothing is left of the new one.

    Parameters
    ----------
    path
        The file's final name; its folder is made where absent.

    Yields
    ------
    Path
        Next to the final name, hidden, and of this process alone; see `partial_path`.

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
            raise  # of something else, written inside of the block
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the final name when the block ends well.

    After an error what was there before is as it was, and nothing is left of the new one.

    Parameters
    ----------
    path
        The folder's final name; its parent is made where absent. What is there is replaced.

    Yields
    ------
    Path
        Next to the final name, empty.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    require_writable(path)
    # Names that the next process has too: it removes what a kill has left.
    partial, old = (path.with_name(f".{path.name}.{mark}") for mark in ("partial", "old"))
    try:
        for left in (partial, old):  # by a kill
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
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def requiring_same(folder: Path) -> Iterator[Callable[[], None]]:
    """Give a check that raises once a folder was removed, or another one has its name.

    That happens to a process that is suspended for so long that others take it for ended.

    Parameters
    ----------
    folder
        What this process has made, to give it another name; in an object store nothing is checked.
    """
    if object_path(folder) is not None:
        yield lambda: None
        return
    gone = (
        f"{folder} was removed, or begun again, by another process, which took this one for "
        "ended, as it gave no sign for a while; repeat the command"
    )
    try:
        descriptor = os.open(folder, os.O_RDONLY)  # while it is open, no other one has its number
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
    """Refuse an address that cannot be written, before any work.

    Raises
    ------
    OutputError
        If it is of a web server, or not one of `place`: what works with any folder writes there.
    """
    if (remote := object_path(path)) is not None:
        if remote.is_read_only:
            raise OutputError(
                f"cannot write {path}: a web server is only read; write to a folder, s3://, gs:// "
                "or az://"
            )
    elif is_remote(path):
        raise OutputError(
            f"cannot write {without_secrets(str(path))}: this is written to folders of this "
            "machine only; choose one, and copy it there afterwards"
        )


def write_atomic(path: Path, content: bytes | str, *, sync_name: bool = True) -> None:
    """Write a file that is at hand as bytes, or as text to be encoded as UTF-8.

    Parameters
    ----------
    path
        The file; its folder is made where absent.
    content
        What it holds.
    sync_name
        Whether to wait until its name is on the disk too, or its folder is synced soon.

    Raises
    ------
    OutputError
        If the file or its folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if (remote := object_path(path)) is not None:  # an object is there whole or not at all
        try:
            remote.write_bytes(data)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        return
    require_writable(path)
    try:
        write_whole(path, data)
        if sync_name:
            sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of a disk under a temporary name, wait for the disk, and rename it.

    For many files of one folder: that a name is on the disk too is waited for with `sync`.

    Parameters
    ----------
    path
        The file; its folder is made where absent.
    data
        Its content.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left of it then.
    """
    partial = partial_path(path)
    try:
        with _created(partial) as file:
            rest = memoryview(data)
            while rest:  # one call of the system takes 2 GB at most
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _created(path: Path) -> FileIO:
    """Open a file to be written; its folder, which is mostly there, is made where absent."""
    try:
        return path.open("wb", buffering=0)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb", buffering=0)


def create_new(path: Path, content: bytes) -> bool:
    """Make a file that is not there yet; of several processes only one can.

    Returns
    -------
    bool
        Whether this call has made it.

    Raises
    ------
    OSError
        If it cannot be written; FileNotFoundError where its folder is gone.
    """
    if (remote := object_path(path)) is not None:
        return remote.create(content)
    try:
        # NFS and Lustre promise this too.
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
    """Add lines to a file, which is made with its folder where absent, and wait for the disk.

    A line that a kill has cut short is left as it is; the new ones begin on a line of their own.

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
    """Give a folder another name, under which there is nothing yet.

    In an object store it is copied, inside of the store, and then removed.

    Parameters
    ----------
    path, target
        The folder and its name to be.
    last
        File without which nothing counts as complete; it gets its new name last.
    first
        File without which nothing counts as unfinished; it loses its old name first.
    without
        Files and folders that are not copied in an object store: only unfinished work has them.

    Raises
    ------
    OSError
        If that fails.
    """
    source, copy = object_path(path), object_path(target)
    if source is None or copy is None:
        path.rename(target)
        sync(target.parent)
    else:
        copy_folder(source, copy, last=last, without=without)
        remove_folder(path, first=first)


def remove_folder(path: Path, *, first: str | None = None) -> None:
    """Remove a folder and all that is in it, if it is there.

    Parameters
    ----------
    path
        The folder.
    first
        File to remove before all others, so that what a kill leaves does not look like a whole.

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
    """Add up the sizes of all files in a folder."""
    if (remote := object_path(path)) is not None:
        return sum(remote.sizes().values())
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def remove_tree(folder: Path) -> None:
    """Remove a folder that nobody looks for any more, if it exists.

    What this machine still reads of it is left on NFS, which removes it once it is closed.

    Raises
    ------
    OSError
        If something else cannot be removed.
    """

    def unless_in_use(_: object, __: str, error: BaseException) -> None:
        if not (isinstance(error, FileNotFoundError) or _errno(error) in _IN_USE):
            raise error

    shutil.rmtree(folder, onexc=unless_in_use)


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None
