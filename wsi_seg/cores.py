"""Owns the resources that this process may use: CPU cores and memory.

Cores are limited by affinity, the CPU quota of the container, and sharing with other processes;
memory by the limit of the container.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsi_seg.errors import ConfigError

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

# Cores that readers leave to launching and writing; minimum number of readers.
_OTHER_CORES, _MIN_READERS = 2, 2

# cgroup v1 reports no limit as a number at least this large.
_UNLIMITED = 2**62


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    The smaller of affinity and CPU quota (rounded up), divided by the number of processes that
    share the cores; see `share_cores`.
    """
    return max(1, _cores() // _share().among)


def default_readers() -> int:
    """Return the default number of concurrent reads for the available cores."""
    return max(_MIN_READERS, available_cores() - _OTHER_CORES)


def share_cores(among: int) -> None:
    """Share the cores of this machine with its other workers.

    Parameters
    ----------
    among
        Number of processes that share them, including this one.

    Raises
    ------
    ConfigError
        If ``among`` is below 1.
    """
    if among < 1:
        raise ConfigError(f"got cores to be shared among {among} processes; expected 1 or more")
    _share().among = among


@dataclass(slots=True)
class _Share:
    among: int = 1


@functools.cache
def _share() -> _Share:
    """Return the share of this process; a forked child inherits that of its parent."""
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
    """Return the CPU quota of this process's cgroups in cores, rounded up; None without a quota.

    Parameters
    ----------
    own
        File that lists the cgroups of this process.
    groups
        Root folder of the cgroups.
    """
    quotas = [
        -(-quota // period)
        for folder in _folders("cpu", own, groups)
        for quota, period in _quota(folder)
    ]
    return min(quotas, default=None)


def memory_limit(own: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int | None:
    """Return the memory limit of this process's cgroups in bytes; None without a limit.

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
    """Yield the folders of a controller's cgroups and their parents, each of which may set a limit.

    A container may see paths of its host; its own cgroup is then the root folder.
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
    """Yield quota and period in microseconds, if the cgroup has a quota."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        found = _numbers(folder, *names)
        if len(found) == 2 and min(found) > 0:
            yield found[0], found[1]


def _numbers(folder: Path, *names: str) -> list[int]:
    """Return the integers in some files; empty if a file does not exist, or contains "max"."""
    try:
        words = " ".join((folder / name).read_text() for name in names).split()
        return [int(word) for word in words]
    except (OSError, ValueError):
        return []
