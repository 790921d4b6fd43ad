import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from wsi_seg.errors import BusyError, OutputError
from wsi_seg.files.half_written import partial_mark
from wsi_seg.store.lock import locked, sharing

HOLD = """
    import sys, time
    from pathlib import Path
    from wsi_seg.store.lock import locked, sharing
    with locked(Path(sys.argv[1]), "wsi-seg tile", make=True):
        print("held", flush=True)
        time.sleep(60)
"""


@contextlib.contextmanager
def holding(folder, script):
    """Another process that is at work in a folder, killed at the end."""
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def owner(tmp_path):
    with holding(tmp_path / "s.zarr", HOLD) as process:
        yield process


def test_a_second_command_names_the_first(owner, tmp_path):
    message = rf"in use by `wsi-seg tile` \(process {owner.pid} on .+, 20\d\d-.+\); wait"
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(BusyError, match=message), locked(tmp_path / "s.zarr", "wsi-seg infer"):
            pass
    with locked(tmp_path / "other.zarr", "wsi-seg tile", make=True):
        pass


def test_a_killed_owner_leaves_no_lock(owner, tmp_path):
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    run = tmp_path / "s.zarr" / ".wsi_seg/run"
    assert len(list(run.iterdir())) == 2  # its note and its claim
    with locked(tmp_path / "s.zarr", "wsi-seg infer"):
        (note,) = run.glob("*.alive")
        assert f'"pid": {os.getpid()}' in note.read_text()
    assert not run.exists()


def test_claims_of_a_killed_process_are_removed_by_those_who_share(owner, tmp_path):
    run = tmp_path / "s.zarr" / ".wsi_seg/run"
    (ended,) = run.glob("*.alive")
    (run / "0123.plan.lock.0").write_text(ended.stem)  # killed while it wrote the plan
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    with holding(tmp_path / "s.zarr", HOLD.replace("locked", "sharing").replace("make=True", "")):
        (live,) = (path.stem for path in run.glob("*.alive"))
        assert [path.name for path in run.iterdir()] == [f"{live}.alive"]
        (run / "4567.plan.lock.0").write_text(live)
        with sharing(tmp_path / "s.zarr", "wsi-seg tile"):
            assert (run / "4567.plan.lock.0").read_text() == live


def test_what_was_half_written_by_a_killed_process_is_removed_and_by_a_live_one_is_kept(
    owner, tmp_path
):
    folder, host = tmp_path / "s.zarr", socket.gethostname()
    dead, alive, own = (partial_mark(host, pid) for pid in (2**22 + 1, owner.pid, os.getpid()))
    names = [f"{place}/.zarr.json.{mark}.partial" for place in (".", ".wsi_seg", ".wsi_seg/run")
             for mark in (dead, alive, own)]  # fmt: skip
    names += [".wsi_seg/run/.host-1-0123abcd.partial", "zarr.json.partial"]
    for name in names:
        (folder / name).touch()
    with pytest.raises(BusyError), locked(folder, "wsi-seg infer"):
        pass
    assert {name for name in names if (folder / name).exists()} == {
        name for name in names if dead not in name
    }


def test_those_that_share_keep_off_others_and_the_other_way_round(tmp_path):
    folder = tmp_path / "p.zarr"
    one = r"in use by `wsi-seg infer --shard 1/2` \(process"
    script = HOLD.replace("locked", "sharing").replace("make=True", "shard='1/2'")
    with holding(folder, script.replace("tile", "infer")):
        with sharing(folder, "wsi-seg infer", shard="2/2"):
            pass
        with pytest.raises(BusyError, match=one), locked(folder, "wsi-seg export"):
            pass
        with pytest.raises(BusyError, match=one), sharing(folder, "wsi-seg tile"):
            pass
    with (
        holding(folder, HOLD),
        pytest.raises(BusyError, match="by `wsi-seg tile`"),
        sharing(folder, "wsi-seg infer"),
    ):
        pass
    with locked(folder, "wsi-seg infer", make=True), sharing(folder, "wsi-seg infer"):
        pass  # a process does not stand in its own way
    assert not list(folder.iterdir())


def test_a_folder_that_is_absent_is_made_only_where_the_verb_makes_it(tmp_path):
    with locked(tmp_path / "none", "wsi-seg annotate"):
        assert not (tmp_path / "none").exists()
    with locked(tmp_path / "new", "wsi-seg tile", make=True):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "kept", "wsi-seg tile", make=True):
        (tmp_path / "kept" / "a").write_text("mine")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a"]


def test_a_place_that_cannot_be_locked_is_said(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(OutputError, match=r"cannot write .*/run"),
        locked(tmp_path / "file" / "s.zarr", "wsi-seg tile", make=True),
    ):
        pass
