import os
import signal
import subprocess
import sys
import textwrap

import pytest

from wsi_seg.errors import BusyError, OutputError
from wsi_seg.store.lock import locked

HOLD = """
    import sys, time
    from pathlib import Path
    from wsi_seg.store.lock import locked
    with locked(Path(sys.argv[1]), "wsi-seg tile", make=True):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "s.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


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
    assert (tmp_path / "s.zarr" / ".lock").exists()
    with locked(tmp_path / "s.zarr", "wsi-seg infer"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "s.zarr" / ".lock").read_text()
    assert not (tmp_path / "s.zarr" / ".lock").exists()


def test_a_note_of_a_process_number_that_is_used_again_is_not_a_lock(tmp_path):
    (tmp_path / ".lock").write_text(f'{{"verb": "x", "pid": {os.getpid()}, "host": "h"}}')
    with locked(tmp_path, "wsi-seg tile"):
        pass


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
        pytest.raises(OutputError, match=r"cannot write .*\.lock"),
        locked(tmp_path / "file" / "s.zarr", "wsi-seg tile", make=True),
    ):
        pass
