"""Owns how many cores this process may use: affinity, its container's quota, its share of them."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsi_seg.errors import ConfigError

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores this process may use, at least 1.

    The smaller of affinity and CPU quota (rounded up), divided by the number of processes that
    share them; see `share_cores`.
    """
    return max(1, _cores() // _share().among)


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
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return None
    quotas = [
        -(-quota // period)
        for line in lines
        for folder in _folders(line, groups)
        for quota, period in _quota(folder)
    ]
    return min(quotas, default=None)


def _folders(line: str, groups: Path) -> Iterator[Path]:
    """Folders of one group and those above it, each of which may have a quota.

    A container may see a path of the machine outside; its own group is then the topmost folder.
    """
    number, _, rest = line.partition(":")
    controllers, _, name = rest.partition(":")
    if number == "0":
        roots = [groups]
    elif "cpu" in controllers.split(","):
        roots = [groups / "cpu", groups / controllers]
    else:
        return
    path = PurePosixPath(name.lstrip("/"))
    for root in roots:
        yield from (root / part for part in (path, *path.parents))


def _quota(folder: Path) -> Iterator[tuple[int, int]]:
    """Quota and period in microseconds; nothing if the group has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / name).read_text() for name in names).split()
            quota, period = (int(word) for word in words)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:
            yield quota, period
