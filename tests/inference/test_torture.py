"""Kills at any moment, of the process and of workers, do not change the bytes of the result."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.cards import make_card
from tests.forks import SERVER
from wsi_seg.errors import StoreNotFoundError
from wsi_seg.inference.distribute import DaskExecutor, connected
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer, infer_with
from wsi_seg.inference.status import read_status
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.predict.ensemble import read_model
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store import open_collection
from wsi_seg.store.names import RUN
from wsi_seg.testing.stores import digests, make_store

pytestmark = pytest.mark.torture

OPTIONS = InferOptions(precision="fp32", batch=4, device="cpu", strip_px=512)


@pytest.fixture
def one_thread(monkeypatch):
    """Threads decide in which order a convolution sums; with one there is one order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A collection of a tall slide and a small one, and a checkpoint."""
    folder = tmp_path_factory.mktemp("work")
    make_store(folder / "store.zarr", "tall", 3300, 150)
    make_store(folder / "store.zarr", "two", 64, 90)
    torch.manual_seed(0)
    card = make_card("gland")
    save_checkpoint(folder / "m.safetensors", build_network(card.spec), card)
    return folder


def command(work, out):
    summary = [sys.executable, "-m", "wsi_seg", "infer", work / "store.zarr", "--out", out]
    summary += ["--checkpoint", work / "m.safetensors", "--precision", "fp32", "--device", "cpu"]
    return [str(word) for word in summary]


class Asking(threading.Thread):
    """Asks for the status all the time, and compares it with what is known of the processes."""

    def __init__(self, out):
        super().__init__()
        self.out, self.over, self.asked, self.strips = out, False, 0, 0
        self.started, self.ended = (
            set[int | None](),
            set[int | None](),
        )  # pids; two threads cannot ask a child
        self.wrong, self.names = [], []

    def run(self):
        done = set[str]()
        while not self.over:
            time.sleep(0.02)
            # One that was waited for has ended, whatever its file says.
            ended = set(self.ended)
            try:
                status = read_status(self.out).of("infer")
            except StoreNotFoundError:
                continue
            started = set(self.started)
            self.asked += 1
            self.strips = sum(slide.strips_done for slide in status.slides)
            pids = {one.name: one.note.pid for one in status.processes}
            self.names.append(set(pids))
            now = {slide.slide for slide in status.slides if slide.state == "done"}
            running = [slide for slide in status.slides if slide.state == "running"]
            checks = {
                "what is done stays done": done <= now,
                "what is done is there": all((self.out / n / "zarr.json").is_file() for n in now),
                "whoever is at work was started": set(pids.values()) <= started,
                "whoever has ended is not at work": not set(pids.values()) & ended,
                "what runs has owners at work": all(
                    slide.owners and set(slide.owners) <= set(pids) for slide in running
                ),
                "tiles are counted": 0 <= status.work_done <= status.work,
            }
            self.wrong += [(name, status) for name, good in checks.items() if not good]
            done = now

    @property
    def absent(self):
        """Processes that were at work, then were not, then were again."""
        found = set()
        for name in set().union(*self.names):
            asked = [number for number, names in enumerate(self.names) if name in names]
            if asked[-1] - asked[0] + 1 != len(asked):
                found.add(name)
        return found


def predict(work, out, shard, cluster, said):
    """Predict a share, or all on a cluster; errors go to a file."""
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    options = replace(OPTIONS, batch=16, shard=shard)
    collection = open_collection(work / "many.zarr")
    report = infer(
        collection, work / "m.safetensors", out, options, cluster=cluster, progress=Silent()
    )
    report.require_whole()


def make_many(work):
    """Make a collection of eleven strips."""
    for name, height, width in (("wide", 1100, 300), ("tall", 3300, 150), ("two", 64, 90)):
        if not (work / "many.zarr" / name).exists():
            make_store(work / "many.zarr", name, height, width)


class Processes:
    """Processes that share an output, started and killed while somebody asks for the status."""

    def __init__(self, work, out):
        self.work, self.out, self.asking = work, out, Asking(out)

    def __enter__(self):
        self.asking.start()
        return self

    def __exit__(self, *_):
        self.asking.over = True
        self.asking.join()

    def start(self, shards, cluster=None):
        """Start a process for each share; None is all of the work."""
        children = []
        for number, shard in enumerate(shards):
            said = self.out.with_name(f"{self.out.name}-{number}.txt")
            child = SERVER.Process(target=predict, args=(self.work, self.out, shard, cluster, said))
            child.start()
            self.asking.started.add(child.pid)
            children.append(child)
        return children

    def end_all(self, shards):
        """Start a process for each share, and wait until all have ended well."""
        self.end(self.start(shards))

    def end(self, children, *, killed=False):
        """Wait until they have ended, which must be well but for those that were killed."""
        for number, child in enumerate(children):
            child.join()
            self.asking.ended.add(child.pid)
            said = self.out.with_name(f"{self.out.name}-{number}.txt")
            assert child.exitcode == 0 or killed, said.read_text()


def test_four_shards_killed_twenty_times_give_the_bytes_of_a_calm_run(work, tmp_path, one_thread):
    make_many(work)
    calm = Processes(work, tmp_path / "calm.zarr")
    calm.end_all([None])
    expected = digests(calm.out)
    rng, kills, turn = np.random.default_rng(5), 0, 0
    while kills < 20:  # some have ended before their moment comes
        turn += 1
        with Processes(work, tmp_path / f"killed{turn}.zarr") as many:
            kills += killed_once(many, rng)
        assert digests(many.out) == expected
        assert not many.asking.wrong
        assert not many.asking.absent
        print(f"turn {turn}: {kills} kills, status asked {many.asking.asked} times", flush=True)


def killed_once(many, rng):
    """Start four shards, kill each at a moment, run them again, and count the kills."""
    shards = [Shard(number, 4) for number in range(1, 5)]
    children, kills = many.start(shards), 0
    # When so many of eleven strips are done, and a little later: whatever the load is.
    for strips, child in sorted(
        zip(rng.integers(-1, 12, 4), children, strict=True), key=lambda pair: pair[0]
    ):
        while child.exitcode is None and many.asking.strips < strips:
            time.sleep(0.01)
        child.join(rng.exponential(0.5 if strips < 0 else 0.05))
        kills += child.exitcode is None
        child.kill()
    many.end(children, killed=True)
    if (many.out / RUN).is_dir():
        status = read_status(many.out).of("infer")
        assert not status.processes
        assert not status.count("running")
    many.end_all(shards)
    # All had ended before the last kill's share.
    if not read_status(many.out).of("infer").is_complete:
        many.end_all([None])
    return kills


def test_workers_and_live_shards_at_once_with_kills(work, tmp_path, one_thread):
    make_many(work)
    calm = Processes(work, tmp_path / "calm.zarr")
    calm.end_all([None])
    rng = np.random.default_rng(7)
    for turn in range(3):
        with Processes(work, tmp_path / f"mixed{turn}.zarr") as many:
            shards = many.start([Shard(number, 3) for number in range(1, 4)])
            whole = many.start([None], cluster="local:2")
            for strips, child in zip(np.sort(rng.integers(0, 9, 2)), shards[:2], strict=True):
                while child.exitcode is None and many.asking.strips < strips:
                    time.sleep(0.01)
                child.kill()
            many.end(shards, killed=True)
            many.end(whole)  # it also does what was left
        assert digests(many.out) == digests(calm.out)
        assert not many.asking.wrong
        assert not many.asking.absent


def begin(work, out):
    """Start the command in a process of its own, and wait until it predicts."""
    child = subprocess.Popen(
        command(work, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while (
        child.poll() is None
        and not (out / ".wsi_seg/partial" / "two" / ".wsi_seg/journal.jsonl").exists()
    ):
        time.sleep(0.005)
    return child


def test_killed_at_ten_moments_and_run_again(work, tmp_path, one_thread):
    calm = tmp_path / "calm.zarr"
    child = begin(work, calm)
    started = time.monotonic()
    assert child.wait() == 0
    seconds, expected = time.monotonic() - started, digests(calm)
    moments = np.random.default_rng(3).uniform(0, seconds, 10)
    for turn, moment in enumerate(moments):
        out = tmp_path / f"killed{turn}.zarr"
        child = begin(work, out)
        time.sleep(moment)
        child.kill()
        child.wait()
        assert subprocess.run(command(work, out), check=False, capture_output=True).returncode == 0
        assert digests(out) == expected


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_bytes_of_one_process(work, tmp_path, workers, one_thread):
    collection = open_collection(work / "store.zarr")
    model = read_model([work / "m.safetensors"])
    infer(collection, model, tmp_path / "serial", OPTIONS, progress=Silent())
    report = infer(
        collection, model, tmp_path / "many", OPTIONS, cluster=f"local:{workers}",
        progress=Silent(),
    )  # fmt: skip
    assert digests(tmp_path / "many") == digests(tmp_path / "serial")
    needed = sum(slide.tiles for slide in report.slides)
    assert needed <= report.tiles < 1.3 * needed  # the row between two tasks is predicted twice


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(work, tmp_path, one_thread):
    collection = open_collection(work / "store.zarr")
    model = read_model([work / "m.safetensors"])
    infer(collection, model, tmp_path / "serial", OPTIONS, progress=Silent())
    killed = []

    with connected("local:2") as client:

        def kill_one():
            journal = tmp_path / "many" / ".wsi_seg/partial" / "tall" / ".wsi_seg/journal.jsonl"
            while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
                time.sleep(0.01)
            pid = next(iter(client.run(os.getpid).values()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

        killer = threading.Thread(target=kill_one)
        killer.start()
        infer_with(
            model, list(collection), tmp_path / "many", OPTIONS, progress=Silent(),
            executor=DaskExecutor(client, model, OPTIONS),
        )  # fmt: skip
        killer.join()
    assert killed
    assert digests(tmp_path / "many") == digests(tmp_path / "serial")


def test_a_resume_predicts_hardly_more(work, tmp_path, one_thread):
    collection = open_collection(work / "store.zarr")
    model = read_model([work / "m.safetensors"])

    class Stopped(BaseException):
        pass

    class Stop(Silent):
        left = 60

        def advance(self, amount):
            self.left -= amount
            if self.left < 0:
                raise Stopped

    calm = infer(collection, model, tmp_path / "calm", OPTIONS, progress=Silent())
    done = 0
    with pytest.raises(Stopped):
        infer(collection, model, tmp_path / "cut", OPTIONS, progress=Stop())
    again = infer(collection, model, tmp_path / "cut", OPTIONS, progress=Silent())
    done += 60 + again.tiles
    print(f"{done} tiles in two runs, {calm.tiles} in one")
    assert done < calm.tiles * 1.3  # strips are small here: 512 rows of 3,300
    assert digests(tmp_path / "cut") == digests(tmp_path / "calm")
