"""Predictions in an object store: the bytes of a folder, whatever is killed or fails on the way."""

import io
import json
import math
import random
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.cards import make_card
from tests.forks import begin
from tests.inference.test_shards import MODEL, Killed, load, run, run_share
from tests.object_store import BUCKET, FAULTS, fetched, in_bucket, object_store, sent
from wsi_seg.errors import OutputError
from wsi_seg.files import object_store as clients
from wsi_seg.inference.distribute import DaskExecutor
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer, infer_with
from wsi_seg.inference.staged import _Copies
from wsi_seg.inference.status import read_status
from wsi_seg.inference.task import StripTask, StripWriter
from wsi_seg.inference.transfer import Budget
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
    presence,
    update_names,
)
from wsi_seg.store.info import StoreInfo
from wsi_seg.testing.stores import digests, make_store, write_image

OUT = in_bucket("cases/p.zarr")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides") / "s.zarr"
    make_store(folder, "tall", 1700, 70)
    make_store(folder, "two", 64, 90)
    update_names(folder)
    return list(open_collection(folder))


@pytest.fixture(scope="module")
def calm(stores, tmp_path_factory):
    """Digests of the prediction in a folder."""
    out = tmp_path_factory.mktemp("calm") / "p.zarr"
    run(stores, out)
    return digests(out)


@pytest.fixture
def gate():
    with object_store() as gate:
        yield gate


def test_the_bytes_of_a_folder(stores, calm, gate, tmp_path):
    report = run(stores, OUT)
    assert report.tiles > 0
    assert open_predictions(OUT).names() == ("tall", "two")
    assert fetched(OUT, tmp_path) == calm
    assert not [path for path in OUT.sizes() if "partial" in str(path)]
    assert not [path for path in OUT.sizes() if path.name.endswith(".alive")]
    assert read_status(OUT).is_complete
    assert run(stores, OUT).tiles == 0


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_shards_give_the_bytes_of_a_folder(seed, stores, calm, gate, tmp_path):
    random.seed(seed)
    for _ in range(3):
        run(stores, OUT, Shard(random.randint(1, 2), 2), stop=random.randint(0, 9))
    if not run(stores, OUT):
        pytest.fail("was stopped")
    assert fetched(OUT, tmp_path) == calm
    assert read_status(OUT).is_complete


def test_nothing_is_visible_before_it_is_whole(stores, calm, gate):
    """When the metadata of a slide come, everything else of it is there."""
    looked = []

    def rule(method, path):
        name, _, file = path.removeprefix(f"/{BUCKET}/cases/p.zarr/").partition("/")
        if method == "PUT" and name in ("tall", "two") and file == "zarr.json":
            there = {key.removeprefix("cases/p.zarr/") for key in gate.names()}
            looked.append({one for one in calm if one.startswith(f"{name}/")} - there)

    gate.rule = rule
    run(stores, OUT)
    assert sorted(looked, key=str) == [{"tall/zarr.json"}, {"two/zarr.json"}]


class _Uploads:
    """Shards that the bucket is receiving: each takes a while."""

    def __init__(self):
        self._lock, self._open, self.most = threading.Lock(), 0, 0

    def __call__(self, method, path):
        if method == "PUT" and "/c/" in path and "/partial/" in path:
            with self._lock:
                self._open += 1
                self.most = max(self.most, self._open)
            time.sleep(0.3)
            with self._lock:
                self._open -= 1


def test_shards_of_several_strips_are_on_their_way_at_a_time(gate, tmp_path):
    make_store(tmp_path / "s.zarr", "deep", 512 * 12, 70)
    update_names(tmp_path / "s.zarr")
    gate.rule = uploads = _Uploads()
    run(list(open_collection(tmp_path / "s.zarr")), OUT)
    assert uploads.most > 4  # a strip has an image and a label, and completes a coarser level


def _send(count, budget, recorded, *, interrupted=False):
    """Send strips whose only shard has 100 kB."""

    def write(number, objects):
        objects[in_bucket(f"partial/{number}/c/0")] = bytes(100_000)
        return lambda: recorded.append(number)

    with StripWriter(budget) as writer:
        for number in range(count):
            writer.submit(partial(write, number))
        if interrupted:
            raise Killed


def test_shards_on_their_way_are_bounded_by_bytes_and_recorded_in_order(gate):
    recorded: list[int] = []
    gate.rule = _Uploads()
    _send(8, Budget(250_000), recorded)
    assert gate.rule.most == 2
    assert recorded == list(range(8))


def test_an_interrupt_releases_the_bytes_that_were_not_sent(gate):
    recorded: list[int] = []
    gate.rule, budget = _Uploads(), Budget(1_000_000)
    with pytest.raises(Killed):
        _send(8, budget, recorded, interrupted=True)
    assert len(recorded) < 8
    assert budget.try_take(1_000_000)


def test_a_strip_that_cannot_be_sent_is_not_recorded(gate):
    recorded: list[int] = []
    gate.rule = lambda _method, path: "403" if "/2/" in path else None
    with pytest.raises(OutputError, match="partial/2/c/0"):
        _send(4, Budget(None), recorded)
    assert 2 not in recorded
    assert {f"partial/{number}/c/0" for number in recorded} <= gate.names()


def test_a_strip_is_recorded_after_all_its_shards_are_there(stores, gate):
    app, lines = gate.app, []

    def looking(environ, start_response):
        folder, _, file = environ["PATH_INFO"].partition("/.wsi_seg/shared/")
        if environ["REQUEST_METHOD"] == "PUT" and file.endswith(".jsonl"):
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            folder, there = folder.removeprefix(f"/{BUCKET}/"), gate.names()
            for line in map(json.loads, body.splitlines()):
                names = {f"{folder}/{name}" for name in line["result"]["checksums"]}
                lines.append((len(names), names - there))
        return app(environ, start_response)

    gate.app = looking
    run(stores, OUT)
    assert sum(count for count, _ in lines) > 0
    assert not any(missing for _, missing in lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_request_in_seven_fails_and_nothing_is_lost(fault, stores, calm, gate, tmp_path):
    chance = random.Random(fault)
    writes = ("PUT", "POST") if fault in ("lost", "unanswered") else ("PUT", "POST", "GET", "HEAD")

    def rule(method, path):
        # What deletes is never answered falsely: the store would be at fault.
        if method not in writes or (fault == "lost" and method == "POST"):
            return None
        # Not again and again in the same place: then it is to end with an error.
        again = gate.faults.count((fault, method, path)) > 1
        return fault if chance.random() < 1 / 7 and not again else None

    gate.rule = rule
    report = run(stores, OUT)
    gate.rule = lambda _method, _path: None
    assert {kind for kind, *_ in gate.faults} == {fault}
    assert not report.failures
    assert fetched(OUT, tmp_path) == calm


def test_a_store_that_stays_away_is_named_and_the_run_goes_on_later(
    stores, calm, gate, tmp_path, monkeypatch
):
    monkeypatch.setattr(clients, "_TRIES", 2)
    run(stores, OUT, stop=6)
    gate.rule = lambda _method, _path: "503"
    with pytest.raises(OutputError, match=r"s3://slides/cases/p.zarr.*after 2 retries") as caught:
        run(stores, OUT)
    assert "not-to-be-seen" not in str(caught.value)
    gate.rule = lambda _method, _path: None
    run(stores, OUT)
    assert fetched(OUT, tmp_path) == calm


def test_a_store_without_conditional_writes_is_refused(stores, gate):
    app = gate.app

    def unconditional(environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return app(environ, start_response)

    gate.app = unconditional
    with pytest.raises(OutputError, match="does not support conditional writes"):
        run(stores, OUT)
    assert not list(OUT.sizes())


def test_two_processes_share_one_output(stores, calm, gate, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(lambda number: run(stores, OUT, Shard(number, 2)), (1, 2)))
    assert all(report is not None for report in reports)
    run(stores, OUT)
    assert fetched(OUT, tmp_path) == calm


@pytest.fixture
def remote(stores, gate):
    """The slides, in the bucket; three of them."""
    return list(open_collection(sent(stores[0].path.parent, in_bucket("s.zarr"))))


def test_slides_of_a_bucket_give_the_same_bytes(remote, calm, gate, tmp_path):
    run(remote, tmp_path / "p.zarr")
    assert digests(tmp_path / "p.zarr") == calm


def test_neighbouring_chunks_are_fetched_with_one_request(gate, tmp_path):
    create_collection(tmp_path / "s.zarr")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 5000, 3), dtype=np.uint8)
    write_image(tmp_path / "s.zarr/wide", pixels, StoreInfo().to_json(), shard_px=2048)
    update_names(tmp_path / "s.zarr")
    slides = list(open_collection(sent(tmp_path / "s.zarr", in_bucket("s.zarr"))))
    gate.seen.clear()
    run(slides, tmp_path / "p.zarr")
    reads = [path for method, path in gate.seen if method == "GET" and "/0/c/" in path]
    assert slides[0].image.chunk(0).width * 5 > 5000
    assert len(reads) <= 3  # the index of the shard, and five chunks in two parts


def test_slides_are_read_from_copies_that_are_removed(remote, calm, gate, tmp_path):
    stage, seen = tmp_path / "stage", []
    gate.rule = lambda _method, _path: seen.append(len(list(stage.glob("*"))))
    run(remote, tmp_path / "p.zarr", stage=stage)
    assert digests(tmp_path / "p.zarr") == calm
    assert 0 < max(seen) <= 2
    assert list(stage.iterdir()) == []


def test_where_copies_find_no_room_slides_are_read_from_the_bucket(
    remote, calm, gate, tmp_path, monkeypatch, caplog
):
    usage = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    run(remote, tmp_path / "p.zarr", stage=tmp_path / "stage")
    assert digests(tmp_path / "p.zarr") == calm
    assert "is read from the object store: got a slide of" in caplog.text


class _Uncopied(_Copies):
    def _fetch(self, number):
        return self._tasks[number].store.image


@settings(max_examples=30)
@given(data=st.data())
def test_reads_that_overlap_find_their_slide_and_at_most_two_are_kept(data):
    """Slides are left in order, but reads of one may end after those of the next have begun."""
    count = data.draw(st.integers(1, 5))
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder) / "s.zarr", "one", 8, 8)
        ((one,),) = (list(open_collection(Path(folder) / "s.zarr")),)
        tasks = [StripTask(one, (), Path(folder), frozenset()) for _ in range(count)]
        with _Uncopied(tasks, Path(folder)) as copies, ExitStack() as open_reads:
            held = []
            for number in sorted(data.draw(st.lists(st.integers(0, count - 1), max_size=12))):
                with ExitStack() as read:
                    assert read.enter_context(copies.reading(number)) is one.image
                    if data.draw(st.booleans()):
                        held.append(open_reads.enter_context(read.pop_all()))
                assert len(copies._kept) <= 2
                if held and data.draw(st.booleans()):
                    held.pop(0).close()


def test_dask_workers_write_into_the_bucket(remote, calm, gate, tmp_path):
    options = InferOptions(overlap=0.5, batch=4, strip_px=512, precision="fp32", device="cpu")
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip
    with cluster, Client(cluster) as client:
        executor = DaskExecutor(client, MODEL, options, load=load)
        infer_with(MODEL, remote, OUT, options, executor=executor, progress=Silent())
    assert fetched(OUT, tmp_path) == calm


def test_made_again_and_with_an_overlap_that_adapts(stores, remote, gate, tmp_path):
    for out, slides in ((tmp_path / "p.zarr", stores), (OUT, remote)):
        run(slides, out)
        run(slides, out, overlap=0.25, overwrite=True)
        run(slides, out.with_name("a.zarr"), overlap="adaptive")
    assert fetched(OUT, tmp_path / "got") == digests(tmp_path / "p.zarr")
    adaptive = OUT.with_name("a.zarr")
    assert fetched(adaptive, tmp_path / "adaptive") == digests(tmp_path / "a.zarr")
    assert not [key for key in gate.names() if ".first" in key or "partial" in key]


def test_what_is_never_kept_ends_with_an_error_and_a_later_run_goes_on(
    stores, calm, gate, tmp_path
):
    gate.rule = lambda method, path: "lost" if method == "PUT" and "/0/c/" in path else None
    with pytest.raises(OutputError, match="was accepted 5 times, and is not there afterwards"):
        run(stores, OUT)
    assert not open_predictions(OUT).names()
    gate.rule = lambda _method, _path: None
    run(stores, OUT)
    assert fetched(OUT, tmp_path) == calm


def test_slides_are_listed_once(remote, gate, tmp_path):
    slides = open_collection(in_bucket("s.zarr"))
    gate.seen.clear()
    options = InferOptions(overlap=0.0, batch=4, precision="fp32", device="cpu")
    infer(slides, nn.Conv2d(3, 2, 1), tmp_path / "p.zarr", options, card=make_card("a", "b"))
    assert gate.seen.count(("GET", f"/{BUCKET}/s.zarr/zarr.json")) == 1


def test_a_run_that_ends_does_not_wait_for_the_rest_of_the_next_slide(gate, tmp_path):
    for name in ("one", "two"):
        make_store(tmp_path / "s.zarr", name, 900, 900)
    update_names(tmp_path / "s.zarr")
    slides = list(open_collection(sent(tmp_path / "s.zarr", in_bucket("s.zarr"))))
    order, seen, begun, interrupted = [], [], threading.Event(), threading.Event()

    class Interrupted(Silent):
        def advance(self, amount):
            assert begun.wait(60)
            interrupted.set()
            raise Killed

    def rule(method, path):
        name, _, file = path.removeprefix(f"/{BUCKET}/s.zarr/").partition("/")
        if method == "GET" and file.startswith("0/c/"):
            if name not in order:
                order.append(name)
            if order.index(name) == 1:
                seen.append(path)
                begun.set()
                interrupted.wait(60)

    gate.rule = rule
    options = InferOptions(
        overlap=0.5, batch=4, strip_px=512, precision="fp32", device="cpu", stage=tmp_path / "st"
    )
    executor = SerialExecutor(MODEL, options, load=load, progress=Interrupted())
    with pytest.raises(Killed):
        infer_with(
            MODEL, slides, tmp_path / "p.zarr", options, executor=executor, progress=Silent()
        )
    shards = [path for path in gate.names() if path.startswith(f"s.zarr/{order[1]}/0/c/")]
    assert 0 < len(seen) < len(shards) / 2
    assert list((tmp_path / "st").iterdir()) == []


def test_of_two_processes_one_is_killed(stores, calm, gate, tmp_path, monkeypatch):
    """The other one, or the next, takes over at once: the kernel says that it has ended."""
    written = threading.Event()

    def rule(method, path):
        if method == "PUT" and "/partial/" in path and "/c/" in path:
            written.set()

    gate.rule = rule
    processes = [begin(run_share, stores[0].path.parent, OUT, number) for number in (1, 2)]
    assert written.wait(200)
    processes[0].kill()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0]
    monkeypatch.setattr(presence, "LEASE", math.inf)  # signs alone would never tell
    run(stores, OUT)
    assert fetched(OUT, tmp_path) == calm
