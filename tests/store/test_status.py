"""What status says of shared commands is right at any moment, with kills at any moment."""

import json
import os
import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.forks import SERVER
from wsi_seg.errors import SlideError
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store.names import RUN, TURNS
from wsi_seg.store.presence import Note
from wsi_seg.store.status import CommandStatus, shared_commands
from wsi_seg.store.turns import taking_turns

SIZES = {f"slide{number}": float(number % 3) for number in range(24)}
BAD = {"slide7", "slide8"}


def share(folder, shard, *, seconds=0.004):
    """Do a share as a command does; whatever is begun has a file that says so."""

    def work(name):
        (folder / "begun" / name).touch()
        time.sleep(seconds)
        if name in BAD:
            raise SlideError(f"{name} cannot be read")
        return name

    with taking_turns(
        folder, "export", shard, SIZES, options={}, is_current=lambda *_: True, progress=Silent()
    ) as turns:
        turns.run(work, str, title="export")


def status_of(folder):
    (found,) = shared_commands(folder) or [CommandStatus("export", (), ())]
    return found


class Asking(threading.Thread):
    """Asks for the status all the time, and compares it with what is known of the processes."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.over, self.killed, self.asked = folder, False, False, 0
        self.started, self.ended = set[int | None](), set[int | None]()
        self.wrong: list[tuple[str, CommandStatus]] = []
        self.seen, self.pids = set[str](), set[int | None]()

    def run(self):
        before: dict[str, str] = {}
        while not self.over:
            begun = {path.name for path in (self.folder / "begun").iterdir()}
            ended, kills = set(self.ended), self.killed
            status = status_of(self.folder)
            kills = kills or self.killed
            self.asked += 1
            states = {slide.slide: slide.state for slide in status.slides}
            pids = {one.note.pid for one in status.processes}
            names = {one.name for one in status.processes}
            running = [slide for slide in status.slides if slide.state == "running"]
            fine = {"done", "running", "failed"} | ({"stopped"} if kills else set())
            checks = {
                "what is done stays so": all(
                    states[name] == "done" for name, was in before.items() if was == "done"
                ),
                # What failed is tried again when its share is.
                "what was begun has not to wait": all(
                    states[name] in fine for name in (begun - BAD) & set(states)
                ),
                "nothing stops without a kill": kills or "stopped" not in states.values(),
                "whoever has ended is not at work": not pids & ended,
                "what runs has owners at work": all(
                    slide.since and slide.owners and set(slide.owners) <= names for slide in running
                ),
                "what failed is what cannot be read": all(
                    name in BAD for name, state in states.items() if state == "failed"
                ),
                "work is counted": 0 <= status.work_done <= status.work <= sum(SIZES.values()),
            }
            self.wrong += [(name, status) for name, good in checks.items() if not good]
            self.seen |= set(states.values())
            self.pids |= pids
            before = states


def torture(folder, seed):
    """Run three shards, kill each at some moment, and run them again until all is done."""
    rng, shards = np.random.default_rng(seed), [Shard(number, 3) for number in (1, 2, 3)]
    (folder / "begun").mkdir(parents=True)
    asking = Asking(folder)
    asking.start()
    for killing in (True, True, False):
        children = []
        for shard in shards:
            child = SERVER.Process(target=share, args=(folder, shard))
            child.start()
            asking.started.add(child.pid)
            children.append(child)
        for number in rng.permutation(3) if killing else ():
            time.sleep(rng.exponential(0.15))
            asking.killed = True
            children[number].kill()
        for child in children:
            child.join()
            asking.ended.add(child.pid)
        assert killing or not any(child.exitcode for child in children)
    asking.over = True
    asking.join()
    assert not asking.wrong
    assert asking.pids <= asking.started
    status = status_of(folder)
    assert (status.count("done"), status.count("failed")) == (len(SIZES) - len(BAD), len(BAD))
    assert not status.processes
    return asking


def test_status_is_right_while_shards_are_killed(tmp_path):
    asking = torture(tmp_path / "a", 1)
    assert asking.asked > 10


@pytest.mark.torture
def test_status_is_right_with_forty_seeds_of_kills(tmp_path):
    found = [torture(tmp_path / str(seed), seed) for seed in range(40)]
    print(f"status asked {sum(asking.asked for asking in found)} times")
    assert set.union(*(asking.seen for asking in found)) == {
        "done", "running", "stopped", "waiting", "failed",
    }  # fmt: skip


def test_a_share_at_work_is_shown_with_its_slide_and_what_is_left(tmp_path):
    said: list[CommandStatus] = []

    def work(name):
        said.append(status_of(tmp_path))
        if name == "bad":
            raise SlideError("bad cannot be read")
        return name

    with taking_turns(
        tmp_path, "tile", Shard(1, 2), {"a": 5.0, "bad": 4.0, "b": 3.0, "c": 2.0, "d": 1.0},
        options={}, is_current=lambda *_: True, progress=Silent(),
    ) as turns:  # fmt: skip
        turns.run(work, str, title="tile")
        said.append(status_of(tmp_path))
    states = [{slide.slide: slide.state for slide in one.slides} for one in said]
    assert [one["a"] for one in states] == ["running", "done", "done"]
    assert [one["bad"] for one in states] == ["waiting", "running", "failed"]
    assert {one["c"] for one in states} == {"waiting"}
    (process,) = said[0].processes
    assert process.note.pid == os.getpid()
    assert said[0].slides[0].owners == (process.name,)
    assert (said[1].work_done, said[1].work, said[2].work) == (5.0, 15.0, 11.0)
    assert said[0].seconds_left is None
    assert said[1].seconds_left is not None
    assert "bad: failed: bad cannot be read" in said[2].lines()
    assert said[0].lines()[0] == "tile: 5 slides: 0 done, 1 running, 0 stopped, 4 waiting, 0 failed"
    assert any(line.startswith("a: running by ") and " since " in line for line in said[0].lines())
    assert not status_of(tmp_path).processes


def test_a_slide_of_another_machine_runs_until_its_lease_ends(tmp_path):
    folder = tmp_path
    (folder / "begun").mkdir()
    share(folder, Shard(1, 1), seconds=0)
    (folder / RUN).mkdir()
    there = replace(Note.own("wsi-seg export", shard="2/2"), host="node7", kernel="of node7")
    file = folder / RUN / "node7-1-0.alive"
    file.write_text(json.dumps(asdict(there)))
    (root,) = (folder / TURNS).iterdir()
    result = next(root.glob("*.result"))
    (root / "claims").mkdir(exist_ok=True)
    (root / "claims" / f"{result.stem}.0").write_text("node7-1-0")
    result.unlink()
    for age, state in ((50, "running"), (61, "stopped")):
        os.utime(file, (time.time() - age, time.time() - age))
        assert status_of(folder).count(state) == 1
    assert file.exists()  # whoever asks changes nothing
