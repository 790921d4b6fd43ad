"""A process that is suspended until others take it for ended, then goes on, changes no byte.

As on machines that cannot ask each other's kernel: signs alone tell who lives, here very soon.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.test_shares import content, work  # noqa: F401 (a fixture)
from tests.forks import begin
from tests.inference.test_shards import run as predict
from wsi_seg.cli.app import main
from wsi_seg.errors import WsiSegError
from wsi_seg.shard import Shard
from wsi_seg.store import open_collection, presence


def run(words, said, moment):
    """Run a command whose signs alone count; suspend it at a moment, counted in calls of fsync."""
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    presence.LEASE, presence.BEAT = 1.0, 0.2
    presence._lock = lambda *_: False
    fsync, calls = os.fsync, [0]

    def count(descriptor):
        calls[0] += 1
        if calls[0] == moment:
            os.kill(os.getpid(), signal.SIGSTOP)
        fsync(descriptor)

    os.fsync = count
    if words[0] == "infer":
        _, store, out = words
        try:
            predict(list(open_collection(store)), out, Shard(1, 1)).require_whole()
        except WsiSegError as error:  # as the command does
            sys.exit(f"error: {error}")
        return
    sys.argv = ["wsi-seg", *map(str, words), "--shard", "1/1"]
    main()


def start(words, said, moment=0):
    return begin(run, words, said, moment)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def suspend(words, folder, moment):
    """Suspend a process, let another one do what it has left, and let it go on.

    Returns whether it came to that moment.
    """
    first = start(words, folder / "first.txt", moment)
    while first.is_alive() and not is_stopped(first.pid):
        time.sleep(0.01)
    stopped = first.is_alive()
    second = start(words, folder / "second.txt")
    second.join()
    assert second.exitcode == 0, (folder / "second.txt").read_text()
    if stopped:
        os.kill(first.pid, signal.SIGCONT)
    first.join()
    said = (folder / "first.txt").read_text()
    assert "Traceback" not in said
    assert first.exitcode in (0, 1), said
    return stopped


def commands(verb, work, folder):  # noqa: F811
    """Words of a command, and the folders that it leaves."""
    if verb == "tile":
        return ["tile", work / "slides", "--out", folder / "s.zarr"], ["s.zarr"]
    if verb == "annotate":
        shutil.copytree(work / "plain.zarr", folder / "s.zarr")
        return ["annotate", folder / "s.zarr", work / "polygons"], ["s.zarr"]
    if verb == "infer":
        return ["infer", work / "plain.zarr", folder / "p.zarr"], ["p.zarr"]
    shutil.copytree(work / "pred.zarr", folder / "p.zarr")
    if verb == "evaluate":
        words = ["--truth", work / "store.zarr", "--threshold", 0.5, "--maps"]
        return ["evaluate", folder / "p.zarr", *words, "--out", folder / "scores"], [
            "scores", "p.zarr",
        ]  # fmt: skip
    words = ["--geojson", folder / "g", "--ome-zarr", folder / "z", "--rle", folder / "r" / "r.csv"]
    return ["export", folder / "p.zarr", *words], ["g", "z", "r", "p.zarr"]


def complete(folder, verb=""):
    """What is ever read: what infer or a label leaves unfinished is removed by the next one."""
    unfinished = ".wsi_seg/partial/" if verb == "infer" else "/.wsi_seg/partial/"
    return {name: one for name, one in content(folder).items() if unfinished not in name}


@pytest.fixture(params=["tile", "annotate", "infer", "evaluate", "export"])
def verb(request):
    return request.param


def require_calm(verb, work, folder, moments):  # noqa: F811
    """Suspend a command at these moments, and compare with what it leaves undisturbed."""
    (folder / "calm").mkdir()
    words, leaves = commands(verb, work, folder / "calm")
    child = start(words, folder / "calm.txt")
    child.join()
    assert child.exitcode == 0
    expected = {name: complete(folder / "calm" / name) for name in leaves}
    stopped = 0
    for moment in moments:
        inside = folder / str(moment)
        inside.mkdir()
        words, leaves = commands(verb, work, inside)
        stopped += suspend(words, inside, moment)
        found = {name: complete(inside / name, verb) for name in leaves}
        assert found == expected, f"{verb} suspended at {moment}"
        child = start(words, inside / "again.txt")
        child.join()
        assert child.exitcode == 0, (inside / "again.txt").read_text()
        assert {name: complete(inside / name) for name in leaves} == expected
    return stopped


def test_suspended_in_the_middle_and_taken_over(verb, work, tmp_path):  # noqa: F811
    assert require_calm(verb, work, tmp_path, [20, 60])


@pytest.mark.torture
def test_suspended_at_thirty_moments(verb, work, tmp_path):  # noqa: F811
    moments = np.random.default_rng(11).choice(200, 30, replace=False) + 1
    assert require_calm(verb, work, tmp_path, map(int, moments)) > 5
