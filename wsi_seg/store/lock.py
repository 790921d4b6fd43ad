"""Owns which commands may be at work in a folder at the same time.

Most want it for themselves. Those that share their work, as the shards of a run do, only keep off
others. Reading needs no leave: nothing unfinished can be read.
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
    """Hold a folder while a command writes to it.

    Parameters
    ----------
    folder
        Collection or run.
    verb
        What the command is called, for the message that others get.
    make
        Whether the folder is made where it is absent, and removed again if it stays empty;
        otherwise there is nothing to hold. Only what `place` gave is made in an object store.

    Raises
    ------
    BusyError
        If another command is at work there; names its verb, process, host and time.
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
                if not other.alone:  # one that wants to be alone has lost against this one
                    raise _busy(folder, other)
            yield
        finally:
            claims.give_back(_ALONE)


@contextmanager
def sharing(
    folder: Path, verb: str, *, shard: str | None = None, options: str = ""
) -> Iterator[Presence]:
    """Work in a folder with other processes of the same command.

    Parameters
    ----------
    folder
        Collection; made where absent, and removed if it stays empty.
    verb
        What the command is called; others are kept off.
    shard
        Which share of the work this process does.
    options
        Names the options that all of these processes must have.

    Yields
    ------
    Presence
        Of this process, for its claims.

    Raises
    ------
    BusyError
        If another command is at work there, or one with other options; names its verb, process,
        host and time.
    OutputError
        If the folder cannot be written.
    """
    require_writable(folder)
    note = Note.own(verb, shard=shard, options=options)
    with _removed_if_empty(folder), _present(folder, note) as presence:
        # Both kinds first say that they are there, then look: at worst both give way.
        for _, other in presence.watcher.others(presence.id):
            if other.is_own:
                continue
            if other.alone or other.verb != verb:
                raise _busy(folder, other)
            if other.options != options:
                raise BusyError(
                    f"{folder} is in use by {other}, which was given other options or other "
                    "slides; wait until that has ended, or give the same to all that share the work"
                )
        yield presence


@contextmanager
def _present(folder: Path, note: Note) -> Iterator[Presence]:
    with _removed_if_empty(folder / OWN, always=True), ExitStack() as stack:
        try:
            presence = stack.enter_context(Presence(folder / RUN, note))
            _sweep(folder, presence)
        except OSError as error:
            raise OutputError(f"cannot write {folder / RUN}: {error.strerror or error}") from error
        yield presence


def _sweep(folder: Path, presence: Presence) -> None:
    """Remove files that were half written when their process was killed."""
    if object_path(folder) is not None:  # object stores show nothing that is half written
        return
    # Looked for first: who begins to write after that is not taken for one that has ended.
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
    """Remove a folder at the end if it was absent, or in any case, and nothing came into it."""
    # In an object store there is no folder to remove.
    there = object_path(folder) is not None or (folder.exists() and not always)
    try:
        yield
    finally:
        if not there:
            with suppress(OSError):
                folder.rmdir()


def _is_only_read(folder: Path) -> bool:
    """Whether nothing can be written to an address; then nobody needs to be kept off."""
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
        f"{folder} is in use by {other or 'another command'}; wait until that has ended, or end "
        "it, and repeat the command"
    )
