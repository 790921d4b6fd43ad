"""Network file systems, as far as one machine can play them: what they lose, refuse and keep."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import atomic_folder, write_atomic
from wsi_seg.files.durable import sync
from wsi_seg.files.shared import read_replaced
from wsi_seg.geometry import Region
from wsi_seg.store import delete, open_collection
from wsi_seg.store.claims import Claims
from wsi_seg.store.presence import Note, Presence, Watcher
from wsi_seg.store.shards import Shard, write_shard
from wsi_seg.store.writer import write_strip
from wsi_seg.testing.stores import make_store


@pytest.fixture
def stale(tmp_path, monkeypatch):
    """As on NFS: what was opened is gone once its file was replaced or removed.

    Gives a list of what other machines do; each thing is done when a file has just been opened.
    """
    fstat, pread = os.fstat, os.pread
    meanwhile: list[Callable[[], object]] = []

    def require(descriptor):
        if not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(tmp_path):
            return
        if meanwhile:
            meanwhile.pop(0)()
        if not fstat(descriptor).st_nlink:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def stale_fstat(descriptor):
        require(descriptor)
        return fstat(descriptor)

    def stale_pread(descriptor, size, offset):
        require(descriptor)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "fstat", stale_fstat)
    monkeypatch.setattr(os, "pread", stale_pread)
    return meanwhile


def _replace(path, content):
    """Replace a file, as another machine does."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.rename(path)


def test_a_file_that_was_replaced_while_it_was_opened_is_read_again(tmp_path, stale):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    stale += [lambda: _replace(path, b"newer"), lambda: _replace(path, b"newest")]
    assert read_replaced(path) == b"newest"


def test_a_file_that_is_replaced_without_end_is_an_error(tmp_path, stale):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    stale += [lambda: _replace(path, b"new")] * 20
    with pytest.raises(OSError, match="Stale file handle"):
        read_replaced(path)


def test_a_slide_opens_whose_metadata_are_replaced_meanwhile(tmp_path, stale):
    make_store(tmp_path / "s.zarr", "a", 200, 300)
    slides = open_collection(tmp_path / "s.zarr")
    file = tmp_path / "s.zarr" / "a" / "0" / "zarr.json"
    content = file.read_bytes()
    stale += [lambda: None, lambda: _replace(file, content)]  # the group's come first
    assert slides["a"].image.arrays[0].extent.width == 300
    assert not stale


def test_a_process_whose_file_gives_a_stale_handle_still_lives(tmp_path, stale):
    with Presence(tmp_path, Note.own("wsi-seg infer")) as presence:
        file = tmp_path / f"{presence.id}.alive"
        content = file.read_bytes()
        stale += [lambda: _replace(file, content)]
        sign = Watcher(tmp_path).sign(presence.id)
        assert sign is not None
        assert not stale


def test_a_sign_that_cannot_be_read_does_not_end_a_process(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Presence(tmp_path, Note.own("wsi-seg infer")) as presence:
        monkeypatch.setattr(os, "open", fail)
        with pytest.raises(OSError, match="Input/output error"):
            presence.watcher.lives(presence.id)
        monkeypatch.undo()


def test_claims_of_a_folder_that_is_removed_while_it_is_listed_are_none(tmp_path, monkeypatch):
    folder, iterdir = tmp_path / "shared", Path.iterdir
    asked: list[Path] = []

    def gone(path):
        asked.append(path)
        if len(asked) == 1:
            folder.rmdir()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return iterdir(path)

    with Presence(tmp_path / "run", Note.own("wsi-seg infer")) as presence:
        folder.mkdir()
        monkeypatch.setattr(Path, "iterdir", gone)
        assert Claims(folder, presence).holder("part") is None
        monkeypatch.undo()
    assert len(asked) == 2


def test_a_shard_goes_on_after_its_handle_was_lost(tmp_path, monkeypatch):
    path, pread = tmp_path / "0", os.pread
    lost: list[int] = []
    write_shard(path, [b"first", b"second"])

    def lose_once(descriptor, size, offset):
        if not lost:
            lost.append(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return pread(descriptor, size, offset)

    with Shard(path, 2) as shard:
        shard.index()
        monkeypatch.setattr(os, "pread", lose_once)
        assert shard.read(5, 6) == b"second"
    assert lost


def test_a_shard_that_was_replaced_is_not_read_by_the_index_of_the_old_one(tmp_path, stale):
    path, other = tmp_path / "0", tmp_path / "1"
    write_shard(path, [b"first", b"second"])
    write_shard(other, [b"1", b"2"])
    with Shard(path, 2) as shard:
        shard.index()
        other.rename(path)
        with pytest.raises(StoreError, match=r"0 was replaced while it was read; repeat"):
            shard.read(5, 6)
    with Shard(path, 2) as shard:
        assert shard.read(0, 2) == b"12"


def test_a_store_is_read_whose_server_is_started_again_at_each_read(tmp_path, monkeypatch):
    make_store(tmp_path / "s.zarr", "a", 200, 300)
    image = open_collection(tmp_path / "s.zarr")["a"].image
    region = Region(level=0, y=0, x=0, height=200, width=300)
    expected, pread = image.read(region, cached=False), os.pread
    stale: set[tuple[int, int]] = set()

    def lose_each_once(descriptor, size, offset):
        place = (os.fstat(descriptor).st_ino, offset)
        if place not in stale:
            stale.add(place)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", lose_each_once)
    np.testing.assert_array_equal(image.read(region, cached=False), expected)
    assert stale


@pytest.fixture
def no_folder_sync(monkeypatch):
    """As on SMB: folders cannot be synced."""
    fsync = os.fsync

    def refuse(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.usefixtures("no_folder_sync")
def test_a_file_system_that_syncs_no_folders_will_do(tmp_path):
    make_store(tmp_path / "s.zarr", "a", 200, 300)
    assert open_collection(tmp_path / "s.zarr").names() == ("a",)


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_file_that_cannot_be_synced_is_an_error(tmp_path, monkeypatch, number):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path / "a")
    with pytest.raises(OutputError, match=os.strerror(number)):
        write_atomic(tmp_path / "b", "x")


@pytest.fixture
def disk(monkeypatch):
    """What is on the disk for certain: names of files and folders when they were last synced."""
    fsync = os.fsync
    known: dict[Path, set[str] | None] = {}

    def note(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        known[path] = {one.name for one in path.iterdir()} if path.is_dir() else None
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return known


def test_a_strip_is_on_the_disk_with_its_name_when_it_was_written(tmp_path, disk):
    group = make_store(tmp_path / "s.zarr", "a", 300, 1100)
    shutil.rmtree(group / "0" / "c")
    disk.clear()
    rng = np.random.default_rng(0)
    write_strip(group, 0, 128, rng.integers(1, 256, (128, 1100, 3), dtype=np.uint8))
    shards = {group / "0" / "c" / "0" / "1" / str(column) for column in (0, 1)}
    assert shards == {path for path in (group / "0" / "c").rglob("*") if path.is_file()}
    for path in shards:
        for name in (path, *path.parents[:4]):
            assert name == group / "0" or name.name in disk[name.parent], name


def test_a_folder_is_on_the_disk_with_all_its_files_when_it_has_its_name(tmp_path, disk):
    with atomic_folder(tmp_path / "series") as folder:
        (folder / "below").mkdir()
        for name in ("a.dcm", "below/b.dcm"):
            (folder / name).write_bytes(b"x")
        synced_before = set(disk)
    assert not synced_before
    unfinished = tmp_path / ".series.partial"
    assert disk[unfinished] == {"a.dcm", "below"}
    assert disk[unfinished / "below"] == {"b.dcm"}
    assert {unfinished / "a.dcm", unfinished / "below" / "b.dcm"} <= set(disk)
    assert disk[tmp_path] == {"series"}


@pytest.fixture
def open_elsewhere(monkeypatch):
    """As on NFS: a file that this machine has open is renamed, not removed, when it is removed."""
    unlink = os.unlink
    kept: list[str] = []

    def rename_instead(path, *, dir_fd=None):
        name = Path(os.fsdecode(path)).name
        if name.startswith(".nfs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        if name == "0" and not kept:
            kept.append(name)
            os.rename(path, ".nfs0001", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", rename_instead)
    return kept


def test_a_store_whose_file_is_still_open_is_removed_as_far_as_anyone_looks(
    tmp_path, open_elsewhere
):
    make_store(tmp_path / "s.zarr", "a", 200, 300)
    delete(tmp_path / "s.zarr" / "a")
    assert open_elsewhere
    assert open_collection(tmp_path / "s.zarr").names() == ()
    (left,) = (path for path in (tmp_path / "s.zarr").rglob("*") if path.name.startswith(".nfs"))
    left.rename(left.with_name("closed"))  # NFS removes it then
    make_store(tmp_path / "s.zarr", "a", 200, 300)
    delete(tmp_path / "s.zarr" / "a")
    assert not [path for path in (tmp_path / "s.zarr").iterdir() if path.name.endswith(".gone")]
