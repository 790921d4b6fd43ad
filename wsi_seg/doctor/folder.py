"""Owns checks of a folder: write permission, speed, and what resuming and locks rely on.

They write to a temporary hidden folder, which is removed afterwards.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wsi_seg.doctor.finding import Finding
from wsi_seg.files.address import is_remote, without_secrets
from wsi_seg.files.durable import sync

_MB, _GB = 10**6, 10**9

# Most data to write and to read, in blocks of 1 MB, and most seconds for each.
_BLOCKS, _SECONDS = 32, 0.5

# Number of small files to write, sync and rename.
_FILES = 16

# Slower than this, writing files takes longer than predicting a small slide.
_SLOW_MS = 20.0

# Least free space, enough for a slide of a few gigapixels; and largest clock difference.
_LITTLE, _SKEW_S = 10 * _GB, 2.0

# File systems that several machines share; a server then handles locks and times.
_SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "glusterfs", "afs", "9p")

# Errors of a full disk, and of an exceeded quota.
_FULL = (errno.ENOSPC, errno.EDQUOT)

_MOUNTS = Path("/proc/self/mountinfo")

_TRY_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def examine_folder(folder: Path) -> Iterator[Finding]:
    """Check a folder for stores, runs or predictions.

    Parameters
    ----------
    folder
        Folder to check; if it does not exist, its nearest existing parent is checked.
    """
    if is_remote(folder):
        value = f"{without_secrets(str(folder))} is an address, and was not tried"
        advice = "commands that write there refuse a store that does not keep what they need"
        yield Finding("folder", value, "note", advice)
        return
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    kind = file_system(there)
    where = "seen by several machines" if is_shared(kind) else "of this machine"
    yield Finding("folder", f"{there} ({kind}, {where})")
    try:
        yield _free(there)
        with tempfile.TemporaryDirectory(prefix=".wsi-seg-doctor-", dir=there) as scratch:
            yield Finding("write permission", "yes")
            yield from _looks(Path(scratch))
    except OSError as error:
        if error.errno in _FULL:
            value = f"nothing can be written: {error.strerror}"
            yield Finding("room", value, "bad", "free some, or choose another folder")
            return
        value = f"no, as user {os.geteuid()}: {error.strerror or error}"
        advice = "choose another folder, or ask for the right to write there"
        yield Finding("write permission", value, "bad", advice)


def file_system(folder: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that contains a folder, on Linux.

    Parameters
    ----------
    folder
        Absolute path of the folder.
    mounts
        List of mounts, in the format of ``/proc/self/mountinfo``.

    Returns
    -------
    str
        Type such as ``ext4``, ``nfs4`` or ``lustre``; ``unknown`` if there is no list of mounts.
    """
    try:
        rows = [line.partition(" - ") for line in mounts.read_text().splitlines()]
    except OSError:
        return "unknown"
    places = {left.split()[4].replace("\\040", " "): right.split()[0] for left, _, right in rows}
    resolved = folder.resolve()
    return next(
        (places[str(one)] for one in (resolved, *resolved.parents) if str(one) in places), "unknown"
    )


def is_shared(kind: str) -> bool:
    """Return whether several machines can share a file system of this type."""
    return kind.removeprefix("fuse.").startswith(_SHARED)


def _looks(scratch: Path) -> Iterator[Finding]:
    """Run all checks; a full disk stops them, as the following ones would fail too."""
    looks: Mapping[str, Callable[[Path], Finding]] = {
        "speed": _speed,
        "small files": _small_files,
        "rename": _rename,
        "exclusive files": _exclusive,
        "times of files": _times,
        "locks": _lock,
    }
    for name, look in looks.items():
        try:
            yield look(scratch)
        except OSError as error:
            if error.errno in _FULL:
                raise
            value = f"does not work: {error.strerror or error}"
            yield Finding(name, value, "bad", "use another disk")


def _free(there: Path) -> Finding:
    free = shutil.disk_usage(there).free
    value = f"{free / _GB:.1f} GB"
    if free >= _LITTLE:
        return Finding("free space", value)
    return Finding("free space", value, "note", "a store is as large as its slides")


def _speed(scratch: Path) -> Finding:
    """Measure writing with fsync, and reading after the page cache was dropped."""
    path, block = scratch / "speed", os.urandom(_MB)
    most = min(_BLOCKS, shutil.disk_usage(scratch).free // (4 * _MB))
    if not most:
        return Finding("speed", "not measured, for lack of room", "note")
    with path.open("wb", buffering=0) as file:
        started, blocks = time.perf_counter(), 0
        while blocks < most and time.perf_counter() - started < _SECONDS:
            blocks += file.write(block) // _MB
        os.fsync(file.fileno())
        wrote = blocks / (time.perf_counter() - started)
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started, parts = time.perf_counter(), 0
        while time.perf_counter() - started < _SECONDS and file.read(_MB):
            parts += 1
        read = parts / (time.perf_counter() - started)
    value = f"writes {wrote:.0f} MB/s with fsync, reads {read:.0f} MB/s ({blocks} MB)"
    return Finding("speed", value)


def _small_files(scratch: Path) -> Finding:
    """Measure small files as results are written: sync, rename, sync the folder."""
    started, files = time.perf_counter(), 0
    while files < _FILES and time.perf_counter() - started < _SECONDS:
        partial = scratch / f".{files}.partial"
        partial.write_bytes(b"{}")
        sync(partial)
        partial.rename(scratch / f"{files}")
        sync(scratch)
        files += 1
    each = 1000 * (time.perf_counter() - started) / files
    value = f"{each:.1f} ms each, synced and renamed"
    if each <= _SLOW_MS:
        return Finding("small files", value)
    return Finding("small files", value, "note", "thousands of small slides wait for them")


def _rename(scratch: Path) -> Finding:
    """Check that replacing an open file keeps the old content for its reader only."""
    old, new = scratch / "name", scratch / ".name.partial"
    old.write_text("old")
    new.write_text("new")
    with old.open() as reader:
        new.rename(old)
        kept, seen = reader.read(), old.read_text()
    if seen == "new" and kept == "old" and not new.exists():
        return Finding("rename", "replaces a file atomically, even while it is read")
    return Finding("rename", f"gives {kept!r} to a reader and {seen!r} to others", "bad",
                   "expected 'old' and 'new'; results could be seen half written")  # fmt: skip


def _exclusive(scratch: Path) -> Finding:
    """Check that a file can be created exclusively only once."""
    path = scratch / "claim"
    path.open("x").close()
    try:
        path.open("x").close()
    except FileExistsError:
        return Finding("exclusive files", "only one process can create a file (O_EXCL)")
    return Finding("exclusive files", "two processes can create the same file (O_EXCL)", "bad",
                   "two commands could do the same work; use another file system")  # fmt: skip


def _times(scratch: Path) -> Finding:
    """Check that file times can be set, and compare the file system's clock with this machine's."""
    path = scratch / "time"
    before = time.time()
    path.write_text("1")
    first = path.stat().st_mtime
    skew = first - before
    os.utime(path, (first + 5, first + 5))
    if path.stat().st_mtime < first + 4:
        return Finding("times of files", "cannot be set", "bad",
                       "a command at work there may look as if it had ended")  # fmt: skip
    value = f"differ from this clock by {abs(skew):.2f} s"
    if abs(skew) <= _SKEW_S:
        return Finding("times of files", value)
    return Finding("times of files", value, "note", "set the clocks of machine and server (NTP)")


def _lock(scratch: Path) -> Finding:
    """Check that a lock of this process excludes another process."""
    path, found = scratch / "lock", "do not exclude other processes (flock)"
    with path.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            command = [sys.executable, "-S", "-E", "-c", _TRY_LOCK, str(path)]
            done = subprocess.run(command, capture_output=True, timeout=3, check=False)
        except OSError as error:
            found = f"not available (flock): {error.strerror or error}"
        else:
            if done.returncode == 3:
                shared = " of this machine; others were not tested"
                where = shared if is_shared(file_system(path)) else ""
                return Finding("locks", f"exclude other processes (flock){where}")
    advice = "not required; work of a killed command is released after a minute"
    return Finding("locks", found, "note", advice)
