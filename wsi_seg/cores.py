"""Owns what of the machine this process may use.

Cores by affinity, its container's quota and its share of them; memory by its container's limit.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsi_seg.errors import ConfigError

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

# Reads at a time: other work of a process, such as launching and writing, has cores of its own.
_OTHER_CORES, _FEWEST_READERS = 2, 2

# Groups of the first kind write this, or more, where they have no limit.
_UNLIMITED = 2**62


def available_cores() -> int:
    """Cores this process may use, at least 1.

    The smaller of affinity and CPU quota (rounded up), divided by the number of processes that
    share them; see `share_cores`.
    """
    return max(1, _cores() // _share().among)


def default_readers() -> int:
    """Choose how many reads at a time suit the cores this process may use."""
    return max(_FEWEST_READERS, available_cores() - _OTHER_CORES)


def share_cores(among: int) -> None:
    """Share this machine's cores with the other workers on it.

    Parameters
    ----------
    among
        Number of processes that share them, this one included.

    Raises
    ------
    ConfigError
        If it is below 1.
    """
    if among < 1:
        raise ConfigError(f"got cores to be shared among {among} processes; expected 1 or more")
    _share().among = among


@dataclass(slots=True)
class _Share:
    among: int = 1


@functools.cache
def _share() -> _Share:
    """Share of this process; a forked child begins with that of its parent."""
    return _Share()


def _cores() -> int:
    quota = quota_cores()
    return _affinity() if quota is None else min(_affinity(), quota)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def quota_cores(own: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int | None:
    """CPU quota of this process's control groups, in cores rounded up; None if there is none.

    Parameters
    ----------
    own
        File that lists the groups of this process.
    groups
        Folder in which the groups are.
    """
    quotas = [
        -(-quota // period)
        for folder in _folders("cpu", own, groups)
        for quota, period in _quota(folder)
    ]
    return min(quotas, default=None)


def memory_limit(own: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int | None:
    """Memory limit of this process's control groups, in bytes; None if there is none.

    Parameters
    ----------
    own, groups
        See `quota_cores`.
    """
    names = ("memory.max", "memory.limit_in_bytes")
    found = [
        value
        for folder in _folders("memory", own, groups)
        for name in names
        for value in _numbers(folder, name)
    ]
    return min((value for value in found if value < _UNLIMITED), default=None)


def _folders(controller: str, own: Path, groups: Path) -> Iterator[Path]:
    """Folders of a controller's groups and those above them, each of which may have a limit.

    A container may see a path of the machine outside; its own group is then the topmost folder.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0":
            roots = [groups]
        elif controller in controllers.split(","):
            roots = [groups / controller, groups / controllers]
        else:
            continue
        path = PurePosixPath(name.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (path, *path.parents))


def _quota(folder: Path) -> Iterator[tuple[int, int]]:
    """Quota and period in microseconds; nothing if the group has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        found = _numbers(folder, *names)
        if len(found) == 2 and min(found) > 0:
            yield found[0], found[1]


def _numbers(folder: Path, *names: str) -> list[int]:
    """Whole numbers of some files; nothing if there is no such file, or it says "max"."""
    try:
        words = " ".join((folder / name).read_text() for name in names).split()
        return [int(word) for word in words]
    except (OSError, ValueError):
        return []
