"""Owns who is at work in a folder: a file of each process, and whether that process still lives.

Network file systems differ in the locks they keep, so none is relied on alone. A process has ended
when its file is gone; when the kernel that both run on says that nobody locks its file any more;
or when its file was not touched for `LEASE` seconds of the clock of whoever watches it, so that
clocks of machines may differ. In an object store the file is an object, and the one that is locked
is a file of the machine.
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
from wsi_seg.files.shared import names_in, opened_again, read_replaced

# Seconds after which a process that gives no sign has ended, and between two signs.
LEASE = 60.0
BEAT = 10.0

_ENDING = ".alive"

# A note in an object store that is not kept is written this often.
_PUTS = 3


@dataclass(frozen=True, slots=True)
class Note:
    """What a process says about itself.

    Parameters
    ----------
    verb
        Command, such as ``wsi-seg infer``.
    host, pid
        Machine, and number of the process there.
    started
        Local time, with its zone.
    shard
        Which share of the work it does, such as ``3/16``; None for all of it.
    alone
        Whether no other may be at work meanwhile.
    options
        Names the options that all processes of the command must have; empty where it has none.
    kernel
        Names the running kernel where the process has locked its file; empty where it has not.
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
        """Note of this process."""
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return cls(verb, socket.gethostname(), os.getpid(), started, shard, alone, options)

    @property
    def is_own(self) -> bool:
        """Whether this very process wrote it."""
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        share = "" if self.shard is None else f" --shard {self.shard}"
        return f"`{self.verb}{share}` (process {self.pid} on {self.host}, {self.started})"


@dataclass(frozen=True, slots=True)
class Sign:
    """Last sign of a process that has not said that it ended.

    Parameters
    ----------
    time_ns
        Nanoseconds since 1970, by the clock of the file's server.
    locked
        Whether the kernel says that the process lives; None where this kernel cannot know, as on
        another machine.
    """

    time_ns: int
    locked: bool | None

    @property
    def silence(self) -> float:
        """Seconds since then, by the clocks of both."""
        return max(0.0, time.time() - self.time_ns / 1e9)


class Presence:
    """A process at work in a folder: this one, from the beginning of a block to its end.

    Parameters
    ----------
    folder
        Where files of processes are; made where absent, and removed if it stays empty.
    note
        What others can read about this one.
    """

    def __init__(self, folder: Path, note: Note) -> None:
        host = re.sub(r"[^A-Za-z0-9.-]", "_", note.host)[:64]
        self.id = f"{host}-{note.pid}-{secrets.token_hex(4)}"
        self.folder, self.note = folder, note
        self._path = folder / f"{self.id}{_ENDING}"
        self._descriptor, self._text = -1, b""
        self._ended = threading.Event()
        self.watcher = Watcher(folder)

    def __enter__(self) -> "Presence":
        final = _locked_file(self._path)
        while True:
            # Another one may remove the folder at its end, or take the file for one of a kill.
            with contextlib.suppress(FileNotFoundError):
                final.parent.mkdir(parents=True, exist_ok=True)
                self._make(final)
                break
        try:
            self._announce()
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._leave()
            raise
        threading.Thread(target=self._beat, name="wsi-alive", daemon=True).start()
        return self

    def _make(self, final: Path) -> None:
        """Make the file, which is whole and locked before anyone sees it."""
        hidden = partial_path(final)
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            # Where there are no locks, or they keep nobody out, signs alone tell.
            kernel = _kernel() if _lock(self._descriptor, hidden) else ""
            self._text = json.dumps(asdict(replace(self.note, kernel=kernel))).encode()
            os.write(self._descriptor, self._text)
            hidden.rename(final)
        except FileNotFoundError:
            os.close(self._descriptor)
            raise

    def _announce(self) -> None:
        """Show the note in the object store, if that keeps one of two from writing it."""
        if (remote := object_path(self._path)) is None:
            return
        for _ in range(_PUTS):  # of which one may get lost
            remote.create(self._text)
            if not remote.create(b"another one"):
                return
            remote.unlink(missing_ok=True)
        raise OSError(
            errno.ENOTSUP,
            "this object store does not keep two processes from writing the same object "
            "(conditional writes, If-None-Match); write to a folder, then copy it there",
        )

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
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
    """Tells of the processes at work in a folder which of them still live.

    Parameters
    ----------
    folder
        That of `Presence`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, float]] = {}  # last sign, and when it was first seen

    def owners(self) -> list[str]:
        """Names of those that have a file, sorted."""
        names = names_in(self._folder)
        return sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))

    def note(self, owner: str) -> Note | None:
        """Read what a process says about itself; None where it has ended, or says nothing."""
        try:
            return _note(read_replaced(self._folder / f"{owner}{_ENDING}"))
        except OSError:
            return None

    def sign(self, owner: str) -> Sign | None:
        """Last sign of a process; None where its file is gone, so that it has ended."""
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
        except FileNotFoundError:  # gone, or that of another machine
            return None if shown is None else Sign(shown, None)
        return locked if shown is None else Sign(shown, locked.locked)

    def lives(self, owner: str) -> bool:
        """Whether a process may still be at work; False is certain."""
        sign = self.sign(owner)
        if sign is None or sign.locked is not None:
            return sign is not None and sign.locked is True
        return not self.is_silent(owner, sign.time_ns)

    def is_silent(self, owner: str, sign: int) -> bool:
        """Whether this sign was the last one for as long as `LEASE`, since it was first asked."""
        now = time.monotonic()
        last, since = self._seen.get(owner, (None, now))
        if last != sign:
            self._seen[owner] = (sign, now)
            return False
        return now - since > LEASE

    def others(self, own: str) -> Iterator[tuple[str, Note]]:
        """Live processes but one; files of those that have ended are removed."""
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
    """File that a process locks: its own, or, where that is an object, one of its machine."""
    if object_path(path) is None:
        return path
    return Path(tempfile.gettempdir()) / f"wsi-seg-{os.getuid()}" / path.name


def _lock(descriptor: int, path: Path) -> bool:
    """Lock a file for as long as it is open, and find out whether that keeps others out."""
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
    """Whether the owner of a file still locks it; None where this kernel cannot know."""
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
    """Name of the running kernel, the same in all its containers and for no other machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"
