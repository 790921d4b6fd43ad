"""Owns locking a folder for one command, exclusively or shared among processes of that command.

Most commands lock it exclusively; shards of one run share it. Readers need no lock, because
unfinished work is never visible to them.
"""

import errno
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wsi_seg.errors import AddressError, BusyError, OutputError
from wsi_seg.files.atomic import require_writable
from wsi_seg.files.half_written import partial_mark, partials_in
from wsi_seg.files.object_path import object_path, place
from wsi_seg.store.claims import Claims
from wsi_seg.store.names import OWN, RUN, TURNS
from wsi_seg.store.presence import Note, Presence

_ALONE = "alone"


@contextmanager
def locked(folder: Path, verb: str, *, make: bool = False) -> Iterator[None]:
    """Lock a folder exclusively while a command writes to it.

    Parameters
    ----------
    folder
        Collection or run.
    verb
        Name of the command, for the error message of other commands.
    make
        Whether to create the folder if it is missing, and remove it if it stays empty; otherwise a
        missing folder is not locked. In object stores this needs a path made by `place`.

    Raises
    ------
    BusyError
        If another command is running there; the message gives its verb, process, host and time.
    OutputError
        If the folder cannot be written.
    """
    if make:
        require_writable(folder)
    folder = place(folder)
    if not make and (_is_only_read(folder) or not folder.exists()):
        yield
        return
    with _removed_if_empty(folder), _present(folder, Note.own(verb, alone=True)) as presence:
        watcher, claims = presence.watcher, Claims(folder / RUN, presence)
        if not claims.take(_ALONE):
            owner = claims.holder(_ALONE)
            raise _busy(folder, watcher.note(owner) if owner else None)
        try:
            for _, other in watcher.others(presence.id):
                if not other.alone:  # an exclusive one has failed to claim
                    raise _busy(folder, other)
            yield
        finally:
            claims.give_back(_ALONE)


@contextmanager
def sharing(
    folder: Path, verb: str, *, shard: str | None = None, options: str = ""
) -> Iterator[Presence]:
    """Lock a folder together with other processes of the same command.

    Parameters
    ----------
    folder
        Collection; created if missing, and removed if it stays empty.
    verb
        Name of the command; other commands are excluded.
    shard
        Shard of the work that this process does.
    options
        Key of the options, which must be the same in all processes.

    Yields
    ------
    Presence
        Presence of this process, for its claims.

    Raises
    ------
    BusyError
        If another command, or the same one with other options, is running there; the message gives
        its verb, process, host and time.
    OutputError
        If the folder cannot be written.
    """
    require_writable(folder)
    note = Note.own(verb, shard=shard, options=options)
    with _removed_if_empty(folder), _present(folder, note) as presence:
        # Both kinds announce themselves before they check for others: at worst both fail.
        for _, other in presence.watcher.others(presence.id):
            if other.is_own:
                continue
            if other.alone or other.verb != verb:
                raise _busy(folder, other)
            if other.options != options:
                raise BusyError(
                    f"{folder} is in use by {other}, which has other options or other "
                    "slides; wait until it has ended, or give all shards the same ones"
                )
        yield presence


@contextmanager
def _present(folder: Path, note: Note) -> Iterator[Presence]:
    with _removed_if_empty(folder / OWN, always=True), ExitStack() as stack:
        try:
            presence = stack.enter_context(Presence(folder / RUN, note))
            _sweep(folder, presence)
        except OSError as error:
            raise OutputError.of(folder / RUN, error) from error
        yield presence


def _sweep(folder: Path, presence: Presence) -> None:
    """Remove claims and partially written files of killed processes."""
    Claims(folder / RUN, presence).sweep()
    if object_path(folder) is not None:  # object stores have no partially written objects
        return
    # Before the processes: files of processes that start after this must not be removed.
    inside = (folder, folder / OWN, folder / RUN, *(folder / TURNS).glob("*"))
    left = {path: mark for one in inside for path, mark in partials_in(one).items()}
    if not left:
        return
    notes = [presence.watcher.note(presence.id)]
    notes += [note for _, note in presence.watcher.others(presence.id)]
    live = {partial_mark(note.host, note.pid) for note in notes if note is not None}
    for path, mark in left.items():
        if mark not in live:
            path.unlink(missing_ok=True)


@contextmanager
def _removed_if_empty(folder: Path, *, always: bool = False) -> Iterator[None]:
    """Remove a folder at the end if it is empty and was missing before, or ``always``."""
    # In an object store there is no folder to remove.
    there = object_path(folder) is not None or (folder.exists() and not always)
    try:
        yield
    finally:
        if not there:
            with suppress(OSError):
                folder.rmdir()


def _is_only_read(folder: Path) -> bool:
    """Return whether an address is read-only, so that no lock is needed."""
    if (remote := object_path(folder)) is None:
        return False
    probe = remote / RUN / f".{secrets.token_hex(8)}"
    try:
        probe.touch()
        probe.unlink()
    except AddressError as error:
        return error.errno in (errno.EACCES, errno.EROFS)
    return False


def _busy(folder: Path, other: Note | None) -> BusyError:
    return BusyError(
        f"{folder} is in use by {other or 'another command'}; wait until it has ended, or stop "
        "it, and repeat the command"
    )
