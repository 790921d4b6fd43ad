"""Clusters that are not as one wishes: other versions, lost schedulers, workers that come late."""

import _thread
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import dask
import pytest
import torch
from distributed import Client, Future, LocalCluster
from distributed.protocol.pickle import dumps
from distributed.system import MEMORY_LIMIT

from tests.cards import make_card
from tests.makers.memory import PixelPredictor
from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.inference import clusters
from wsi_seg.inference.distribute import DaskExecutor, _memory_of_each
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import _for_workers, infer_with
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.store.journal import read_units
from wsi_seg.store.names import JOURNAL, PARTIAL
from wsi_seg.store.own import own_file
from wsi_seg.testing.stores import digests, make_store

OPTIONS = InferOptions(batch=4, strip_px=512, precision="fp32", device="cpu", overlap=0.0)
MODEL = Model((Member(make_card("a"), "toy"),))


# Calls of `slow` at this moment, and the most there were; workers are threads of this process.
CALLS = {"now": 0, "most": 0}


def slow(tiles):
    CALLS["now"] += 1
    CALLS["most"] = max(CALLS.values())
    time.sleep(0.05)
    CALLS["now"] -= 1
    return tiles[..., :1].transpose(0, 3, 1, 2).astype("float32") / 255


def load(member, options, compiled):
    """Make the predictor of a member: it travels to workers by its name."""
    return PixelPredictor(slow, channels=1)


@pytest.fixture
def stores(tmp_path):
    for number in range(6):
        make_store(tmp_path / "s.zarr", f"slide{number}", 1600, 70)
    return list(open_collection(tmp_path / "s.zarr"))


@pytest.fixture
def expected(stores, tmp_path):
    executor = SerialExecutor(MODEL, OPTIONS, load=load)
    infer_with(MODEL, stores, tmp_path / "serial", OPTIONS, executor=executor, progress=Silent())
    return digests(tmp_path / "serial")


def cluster_of(workers, threads=1):
    return LocalCluster(
        n_workers=workers, threads_per_worker=threads, processes=False, dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip


def infer_on(client, stores, out):
    executor = DaskExecutor(client, MODEL, OPTIONS, load=load)
    infer_with(MODEL, stores, out, OPTIONS, executor=executor, progress=Silent())


def test_workers_that_come_when_there_is_work_give_the_same_bytes(stores, expected, tmp_path):
    with cluster_of(0) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=3, interval="50ms")
        infer_on(client, stores, tmp_path / "many")
    assert digests(tmp_path / "many") == expected


def test_a_worker_that_joins_late_is_sent_the_model_and_works(stores, expected, tmp_path):
    with cluster_of(1) as cluster, Client(cluster) as client:
        joined = threading.Timer(0.3, lambda: cluster.scale(2))
        joined.start()
        infer_on(client, stores, tmp_path / "many")
        joined.join()
    assert digests(tmp_path / "many") == expected


def test_a_worker_with_many_threads_computes_one_part_at_a_time(stores, expected, tmp_path):
    """Memory is planned for one, and so are the turns of a GPU."""
    with cluster_of(1, threads=6) as cluster, Client(cluster) as client:
        CALLS["most"] = 0
        infer_on(client, stores, tmp_path / "many")
    assert CALLS["most"] == 1
    assert digests(tmp_path / "many") == expected


def test_strips_of_a_part_are_recorded_while_it_runs(stores, expected, tmp_path):
    """One worker has all slides as one part: what it has written is kept, and it stops."""

    class Stop(Silent):
        shown = 0.0

        def advance(self, amount):
            if self.shown < 60 <= self.shown + amount:
                _thread.interrupt_main()
            self.shown += amount

    out, progress = tmp_path / "many", Stop()
    with cluster_of(1) as cluster, Client(cluster) as client:
        executor = DaskExecutor(client, MODEL, OPTIONS, load=load, progress=progress)
        with pytest.raises(KeyboardInterrupt):
            infer_with(MODEL, stores, out, OPTIONS, executor=executor, progress=Silent())
    recorded = [
        len(read_units(own_file(out / PARTIAL / store.name, JOURNAL)))
        for store in stores
        if (out / PARTIAL / store.name).exists()
    ]
    assert 0 < sum(recorded) < 24
    infer_with(
        MODEL, stores, out, OPTIONS, executor=SerialExecutor(MODEL, OPTIONS, load=load),
        progress=Silent(),
    )  # fmt: skip
    assert digests(out) == expected


def test_progress_moves_within_a_part_and_ends_at_all_tiles(stores, tmp_path):
    class Noted(Silent):
        def __init__(self):
            self.total, self.amounts = 0.0, []

        def start(self, title, total, unit):
            self.total = total

        def advance(self, amount):
            self.amounts.append(amount)

    progress = Noted()
    with cluster_of(1) as cluster, Client(cluster) as client:
        executor = DaskExecutor(client, MODEL, OPTIONS, load=load, progress=progress)
        infer_with(MODEL, stores, tmp_path / "many", OPTIONS, executor=executor, progress=Silent())
    assert len(progress.amounts) > 1
    assert sum(progress.amounts) == progress.total


def test_each_gpu_gets_a_worker_that_sees_no_other(monkeypatch):
    monkeypatch.setattr(clusters, "visible_gpus", lambda: ("3", "GPU-5a"))
    with clusters.connected("cuda") as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()
        assert sorted(seen) == ["3", "GPU-5a"]
        interrupts = client.run(signal.getsignal, signal.SIGINT).values()
        assert set(interrupts) == {signal.SIG_IGN}
        limits = [one["memory_limit"] for one in client.scheduler_info()["workers"].values()]
        executor = DaskExecutor(client, MODEL, replace(OPTIONS, max_ram=10**12))
    assert executor.options.max_ram == int(min(limits) * 0.75)
    assert sum(limits) <= MEMORY_LIMIT


@pytest.mark.parametrize(("word", "said"), [("cuda:3", "has 2 usable"), ("cuda:0", "1 or more")])
def test_more_gpus_than_there_are_are_refused(word, said, monkeypatch):
    monkeypatch.setattr(clusters, "visible_gpus", lambda: ("0", "1"))
    with pytest.raises(ConfigError, match=said), clusters.connected(word):
        pass


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(clusters, "visible_gpus", lambda: ())
    with pytest.raises(ConfigError, match="no usable CUDA devices"), clusters.connected("cuda"):
        pass


def test_memory_is_divided_among_the_workers_of_a_machine():
    assert _memory_of_each(None, 4, [0, 0]) is None
    assert _memory_of_each(8 * 10**9, 4, [0, 0]) == 2 * 10**9
    assert _memory_of_each(8 * 10**9, 2, [10**9, 4 * 10**9]) == 750 * 10**6
    assert _memory_of_each(None, 1, [0, 10**9]) == 750 * 10**6


def test_a_worker_that_does_not_see_a_file_is_named(tmp_path):
    with cluster_of(2) as cluster, Client(cluster) as client:
        clusters.require_same_files(client, [tmp_path])
        said = rf"worker inproc.+ does not see {tmp_path}/absent, and 1 more do not"
        with pytest.raises(ConfigError, match=said):
            clusters.require_same_files(client, [tmp_path, tmp_path / "absent"])


def test_what_workers_are_given_does_not_depend_on_the_working_folder(
    stores, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (first, *_) = open_collection("s.zarr")
    given = _for_workers(first)
    monkeypatch.chdir("/")
    assert given.path == stores[0].path
    assert (given.image[:9, :9] == stores[0].image[:9, :9]).all()


def test_other_versions_are_named_with_their_worker():
    here = clusters.versions_here()
    with cluster_of(2) as cluster, Client(cluster) as client:
        clusters.require_same_versions(client, here)
        clusters.require_same_versions(client, here | {"torch": here["torch"] + "+cu130"})
        clusters.require_same_versions(client, here | {"Python": here["Python"] + "1"})
        said = r"worker inproc.+, and of 1 more: zarr [\d.]+, here 1\.2\.3; expected the same"
        with pytest.raises(ConfigError, match=said):
            clusters.require_same_versions(client, here | {"zarr": "1.2.3"})
        with pytest.raises(ConfigError, match="no-such-library absent, here 1"):
            clusters.require_same_versions(client, here | {"no-such-library": "1"})


def test_a_worker_without_wsi_seg_can_say_its_versions():
    asked = dumps(clusters._asking(("Python", "numpy", "no-such-library")))
    script = "import pickle, sys; sys.modules['wsi_seg'] = None\n"
    script += f"print(sorted(pickle.loads({asked!r})().items()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    here = clusters.versions_here()
    expected = {"Python": here["Python"], "numpy": here["numpy"], "no-such-library": "absent"}
    assert done.stdout.strip() == str(sorted(expected.items())), done.stderr


def test_a_scheduler_that_dies_is_a_sentence_and_a_rerun_ends_with_the_same_bytes(
    stores, expected, tmp_path
):
    address = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host",
               "127.0.0.1", "--no-dashboard", "--scheduler-file", str(address)]  # fmt: skip
    scheduler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = None
    try:
        while not address.exists() or not address.read_text().endswith("}"):
            time.sleep(0.05)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file",
                   str(address), "--nthreads", "1", "--no-dashboard", "--no-nanny"]  # fmt: skip
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        out = tmp_path / "many"

        class Kill(Silent):
            def advance(self, amount):
                scheduler.kill()

        with Client(scheduler_file=str(address)) as client:
            executor = DaskExecutor(client, MODEL, OPTIONS, load=load, progress=Kill())
            with pytest.raises(OutputError, match="repeat the command once it runs again"):
                infer_with(MODEL, stores, out, OPTIONS, executor=executor, progress=Silent())
    finally:
        for process in (scheduler, worker):
            if process is not None:
                process.kill()
                process.wait()
    with cluster_of(2) as cluster, Client(cluster) as client:
        infer_on(client, stores, tmp_path / "many")
    assert digests(tmp_path / "many") == expected


def test_what_a_worker_returns_is_small_whatever_it_predicted(stores, monkeypatch):
    """Pixels are written where they are made; what comes back are checksums and counts."""
    returned, result = [], Future._result

    async def noted(future, raiseit=True):
        found = await result(future, raiseit=raiseit)
        returned.append(len(pickle.dumps(found)))
        return found

    monkeypatch.setattr(Future, "_result", noted)
    with cluster_of(1) as cluster, Client(cluster) as client:
        infer_on(client, stores, stores[0].path.parents[1] / "many")
    pixels = sum(one.pyramid.extent.area for one in stores)
    assert returned
    assert sum(returned) < pixels / 20


def test_a_part_does_not_carry_the_model(stores):
    """A network in memory of 4 MB travels once to each worker; parts name it."""
    network = torch.nn.Conv2d(3, 1, 1)
    network.register_buffer("ballast", torch.zeros(10**6))
    sent: list[int] = []
    with cluster_of(1) as cluster, Client(cluster) as client:
        model = Model((Member(make_card("a"), "toy", network=network),))
        executor = DaskExecutor(client, model, OPTIONS, load=load)
        send = client.map

        def noted(work, parts, **how):
            sent.extend(len(pickle.dumps((work, part))) for part in parts)
            return send(work, parts, **how)

        client.map = noted
        infer_with(
            model, stores, stores[0].path.parents[1] / "many", OPTIONS, executor=executor,
            progress=Silent(),
        )  # fmt: skip
    assert sent
    assert max(sent) < 100_000


@pytest.mark.parametrize("address", ["tcp://", "tcp://node7", "tcp://node7:x", "tls://node7:8786"])
def test_an_address_that_cannot_be_used_is_refused(address):
    with (
        pytest.raises(ConfigError, match=f"'{address}': .*expected tcp://HOST:PORT"),
        clusters.connected(address),
    ):
        pass
    assert "scheduler" not in dask.config.config  # dask would wait for the client that failed
