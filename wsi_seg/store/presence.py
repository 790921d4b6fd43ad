"""Owns presence files, which show the processes running in a folder and whether they are alive.

Locks are not reliable on all network file systems, so heartbeats are used too. A process has
exited if its file does not exist; if its file is no longer locked (same kernel only); or if its
file was not touched for `LEASE` seconds, measured by the clock of the observer, so that clocks may
differ among machines. In an object store the presence is an object, and a local file is locked.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from wsi_seg.files.half_written import partial_path
from wsi_seg.files.object_path import object_path
from wsi_seg.files.shared import make_folder, names_in, opened_again, read_replaced

# Seconds after the last heartbeat at which a process counts as exited, and between heartbeats.
LEASE = 60.0
BEAT = 10.0

_ENDING = ".alive"

# Attempts to write a note to an object store, and to remove it.
_PUTS = 3


@dataclass(frozen=True, slots=True)
class Note:
    """Description that a process writes about itself.

    Parameters
    ----------
    verb
        Command, such as ``wsi-seg infer``.
    host, pid
        Machine and process id.
    started
        Local start time with time zone.
    shard
        Shard of the work, such as ``3/16``; None for all of it.
    alone
        Whether the process excludes all others.
    options
        Key of the options that all processes of the command must share; empty if there are none.
    kernel
        Boot id of the kernel if the process has locked its file; empty otherwise.
    """

    verb: str
    host: str
    pid: int
    started: str
    shard: str | None = None
    alone: bool = False
    options: str = ""
    kernel: str = ""

    @classmethod
    def own(
        cls, verb: str, *, shard: str | None = None, alone: bool = False, options: str = ""
    ) -> "Note":
        """Return the note of this process."""
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return cls(verb, socket.gethostname(), os.getpid(), started, shard, alone, options)

    @property
    def is_own(self) -> bool:
        """Whether this process wrote the note."""
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        share = "" if self.shard is None else f" --shard {self.shard}"
        return f"`{self.verb}{share}` (process {self.pid} on {self.host}, {self.started})"


@dataclass(frozen=True, slots=True)
class Sign:
    """Last heartbeat of a process whose file exists.

    Parameters
    ----------
    time_ns
        Nanoseconds since 1970, by the clock of the file server.
    locked
        Whether the process holds its lock; None if unknown, for example on another machine.
    """

    time_ns: int
    locked: bool | None

    @property
    def silence(self) -> float:
        """Seconds since then, by the clock of this machine."""
        return max(0.0, time.time() - self.time_ns / 1e9)


class Presence:
    """Context in which this process is registered as running in a folder.

    Parameters
    ----------
    folder
        Folder of the presence files; created if missing, and removed if it is empty at the end.
    note
        Description of this process for others.
    """

    def __init__(self, folder: Path, note: Note) -> None:
        host = re.sub(r"[^A-Za-z0-9.-]", "_", note.host)[:64]
        self.id = f"{host}-{note.pid}-{secrets.token_hex(4)}"
        self.folder, self.note = folder, note
        self._path = folder / f"{self.id}{_ENDING}"
        self._descriptor, self._text = -1, b""
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="wsi-alive", daemon=True)
        self.watcher = Watcher(folder)

    def __enter__(self) -> "Presence":
        final = _locked_file(self._path)
        while True:
            # Another process may remove the empty folder, or the unfinished file.
            with contextlib.suppress(FileNotFoundError):
                make_folder(final.parent)
                self._make(final)
                break
        try:
            self._announce()
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._leave()
            raise
        self._beats.start()
        return self

    def _make(self, final: Path) -> None:
        """Create the file, complete and locked before it becomes visible."""
        hidden = partial_path(final)
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            # Without working locks, only heartbeats are used.
            kernel = _kernel() if _lock(self._descriptor, hidden) else ""
            self._text = json.dumps(asdict(replace(self.note, kernel=kernel))).encode()
            os.write(self._descriptor, self._text)
            hidden.rename(final)
        except FileNotFoundError:
            os.close(self._descriptor)
            raise

    def _announce(self) -> None:
        """Write the note to the object store, if that supports conditional writes."""
        if (remote := object_path(self._path)) is None:
            return
        remote.unlink(missing_ok=True)  # without permission to delete, say so before any work
        for _ in range(_PUTS):  # an accepted write may be lost
            remote.create(self._text)
            if not remote.create(b"another one"):
                return
            remote.unlink(missing_ok=True)
        raise OSError(
            errno.ENOTSUP,
            "this object store does not support conditional writes (If-None-Match), which keep "
            "two processes from writing the same object; write to a folder, then copy it there",
        )

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._beats.join()  # a heartbeat still being sent would create the object again
        for _ in range(_PUTS):  # a connection may be cut; others would wait for the lease
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
                break
        self._leave()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _leave(self) -> None:
        with contextlib.suppress(OSError):
            _locked_file(self._path).unlink()
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                if (remote := object_path(self._path)) is not None:
                    remote.write_bytes(self._text)
                else:
                    os.utime(self._path)


class Watcher:
    """Observes the processes running in a folder, and which of them are alive.

    Parameters
    ----------
    folder
        Folder of the presence files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, float]] = {}  # last heartbeat, and when it was first seen

    def owners(self) -> list[str]:
        """Return the sorted names of the processes with a file."""
        names = names_in(self._folder)
        return sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))

    def note(self, owner: str) -> Note | None:
        """Return the note of a process; None if it has exited or the note is unreadable."""
        try:
            return _note(read_replaced(self._folder / f"{owner}{_ENDING}"))
        except OSError:
            return None

    def sign(self, owner: str) -> Sign | None:
        """Return the last heartbeat of a process; None if it has no file and so has exited."""
        path = self._folder / f"{owner}{_ENDING}"
        remote = object_path(path)

        def look() -> Sign:
            descriptor = os.open(_locked_file(path), os.O_RDONLY)
            try:
                return Sign(os.fstat(descriptor).st_mtime_ns, _is_locked(descriptor))
            finally:
                os.close(descriptor)

        try:
            shown = None if remote is None else remote.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        try:
            locked = opened_again(look)
        except FileNotFoundError:  # removed, or on another machine
            return None if shown is None else Sign(shown, None)
        return locked if shown is None else Sign(shown, locked.locked)

    def lives(self, owner: str) -> bool:
        """Return whether a process may still be running; False is certain."""
        sign = self.sign(owner)
        if sign is None or sign.locked is not None:
            return sign is not None and sign.locked is True
        return not self.is_silent(owner, sign.time_ns)

    def is_silent(self, owner: str, sign: int) -> bool:
        """Return whether a heartbeat in ns has been the last one for over `LEASE` seconds."""
        now = time.monotonic()
        last, since = self._seen.get(owner, (None, now))
        if last != sign:
            self._seen[owner] = (sign, now)
            return False
        return now - since > LEASE

    def others(self, own: str) -> Iterator[tuple[str, Note]]:
        """Iterate over the other live processes; remove the files of those that have exited."""
        for owner in self.owners():
            if owner == own:
                continue
            note = self.note(owner)
            if not self.lives(owner):
                path = self._folder / f"{owner}{_ENDING}"
                for file in {path, _locked_file(path)}:
                    with contextlib.suppress(OSError):
                        file.unlink()
            elif note is not None:
                yield owner, note


def _locked_file(path: Path) -> Path:
    """Return the file that a process locks: its presence file, or a local one for an object."""
    if object_path(path) is None:
        return path
    return Path(tempfile.gettempdir()) / f"wsi-seg-{os.getuid()}" / path.name


def _lock(descriptor: int, path: Path) -> bool:
    """Lock a file as long as it is open, and return whether the lock excludes others."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_locked(descriptor: int) -> bool | None:
    """Return whether the owner of a file still locks it; None if this kernel cannot know."""
    note = _note(os.pread(descriptor, 4096, 0))
    if note is None or not note.kernel or note.kernel != _kernel():
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _note(text: bytes) -> Note | None:
    names = {field.name for field in fields(Note)}
    with contextlib.suppress(ValueError, TypeError):
        return Note(**{key: value for key, value in json.loads(text).items() if key in names})
    return None


def _kernel() -> str:
    """Return the boot id of the kernel, which its containers share and no other machine has."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"
