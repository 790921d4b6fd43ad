"""Cores this process may use: affinity, quotas of both kinds of cgroup, a share of the machine."""

import os

import pytest

from wsi_seg import cores
from wsi_seg.errors import ConfigError


@pytest.fixture
def eight(monkeypatch):
    """Machine of eight cores without a quota, shared with nobody."""
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    monkeypatch.setattr(cores, "quota_cores", lambda: None)
    yield
    cores.share_cores(1)


def groups(folder, own, files):
    """Fake ``/proc/self/cgroup`` and the files under ``/sys/fs/cgroup``."""
    (folder / "cgroup").write_text(own)
    for name, text in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(text)
    return folder / "cgroup", folder / "fs"


V1 = "9:name=systemd:/\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        # The root has no file; any group above may be narrower than the own one.
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "300000 100000"}, 3),
        ("0::/job\n", {"job/cpu.max": "400000 100000", "cpu.max": "250000 100000"}, 3),
        # A container sees its own group as the root, under a path that it cannot see.
        ("0::/machine/abc\n", {"cpu.max": "100000 50000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "350000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (
            V1,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        ("nonsense\n", {"cpu.max": "100000 100000"}, None),
        ("0::/\n", {"cpu.max": "unreadable"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
    ],
)
def test_quota_rounds_up_and_the_narrowest_group_counts(tmp_path, own, files, expected):
    assert cores.quota_cores(*groups(tmp_path, own, files)) == expected


def test_no_cgroups_no_quota(tmp_path):
    assert cores.quota_cores(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "8000000000\n"}, 8e9),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "2000000000\n"}, 2e9),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:memory:/a\n", {"cpu/a/memory.limit_in_bytes": "2000000000\n"}, None),
    ],
)
def test_the_narrowest_group_limits_memory(tmp_path, own, files, expected):
    assert cores.memory_limit(*groups(tmp_path, own, files)) == expected


@pytest.mark.parametrize(("own", "expected"), [(1, 2), (4, 2), (8, 6)])
def test_readers_leave_cores_to_other_work(monkeypatch, eight, own, expected):
    monkeypatch.setattr(cores, "quota_cores", lambda: own)
    assert cores.default_readers() == expected


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (3, 3), (64, 8)])
def test_the_smaller_of_affinity_and_quota(monkeypatch, eight, quota, expected):
    monkeypatch.setattr(cores, "quota_cores", lambda: quota)
    assert cores.available_cores() == expected


@pytest.mark.parametrize(("among", "expected"), [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)])
def test_processes_that_share_a_machine_get_their_part(eight, among, expected):
    cores.share_cores(among)
    assert cores.available_cores() == expected


def test_a_share_of_nothing_is_refused(eight):
    with pytest.raises(ConfigError, match="among 0"):
        cores.share_cores(0)
    assert cores.available_cores() == 8


def test_this_machine():
    assert 1 <= cores.available_cores() <= (os.cpu_count() or 1)
