"""Predictions in an object store: the bytes of a folder, whatever is killed or fails on the way."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.inference.test_shards import run
from tests.object_store import BUCKET, FAULTS, object_store
from wsi_seg import object_store as clients
from wsi_seg.errors import AddressError, OutputError
from wsi_seg.inference.status import read_status
from wsi_seg.object_path import place
from wsi_seg.shard import Shard
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.testing.stores import digests, make_store

pytest.importorskip("obstore", reason="needs the extra `remote`")
pytest.importorskip("moto.server", reason="needs moto, of the extra `dev`")
OUT = Path(f"s3://{BUCKET}/cases/p.zarr")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides") / "s.zarr"
    make_store(folder, "tall", 1700, 70)
    make_store(folder, "two", 64, 90)
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


def fetched(folder, address=OUT):
    """Digests of a collection in the bucket, fetched into a folder."""
    root = place(address)
    for path in root.sizes():
        file = folder / path.relative_to(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())
    return digests(folder)


def test_the_bytes_of_a_folder(stores, calm, gate, tmp_path):
    report = run(stores, OUT)
    assert report.tiles > 0
    assert open_predictions(OUT).names() == ("tall", "two")
    assert fetched(tmp_path) == calm
    assert not [path for path in place(OUT).sizes() if "partial" in str(path)]
    assert not [path for path in place(OUT).sizes() if path.name.endswith(".alive")]
    assert read_status(OUT).is_complete
    assert run(stores, OUT).tiles == 0


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_shards_give_the_bytes_of_a_folder(seed, stores, calm, gate, tmp_path):
    random.seed(seed)
    for _ in range(3):
        run(stores, OUT, Shard(random.randint(1, 2), 2), stop=random.randint(0, 9))
    if not run(stores, OUT):
        pytest.fail("was stopped")
    assert fetched(tmp_path) == calm
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


@pytest.mark.parametrize("fault", FAULTS)
def test_one_request_in_seven_fails_and_nothing_is_lost(fault, stores, calm, gate, tmp_path):
    chance = random.Random(fault)
    writes = ("PUT", "POST") if fault in ("lost", "unanswered") else ("PUT", "POST", "GET", "HEAD")

    def rule(method, _path):
        # What deletes is never answered falsely: the store would be at fault.
        if method not in writes or (fault == "lost" and method == "POST"):
            return None
        return fault if chance.random() < 1 / 7 else None

    gate.rule = rule
    report = run(stores, OUT)
    gate.rule = lambda _method, _path: None
    assert {kind for kind, *_ in gate.faults} == {fault}
    assert not report.failures
    assert fetched(tmp_path) == calm


def test_a_store_that_stays_away_is_named_and_the_run_goes_on_later(
    stores, calm, gate, tmp_path, monkeypatch
):
    monkeypatch.setattr(clients, "_TRIES", 2)
    run(stores, OUT, stop=6)
    gate.rule = lambda _method, _path: "503"
    with pytest.raises(AddressError, match=r"s3://slides/cases/p.zarr.*after 2 retries") as caught:
        run(stores, OUT)
    assert "not-to-be-seen" not in str(caught.value)
    gate.rule = lambda _method, _path: None
    run(stores, OUT)
    assert fetched(tmp_path) == calm


def test_a_store_without_conditional_writes_is_refused(stores, gate):
    app = gate.app

    def unconditional(environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return app(environ, start_response)

    gate.app = unconditional
    with pytest.raises(OutputError, match="does not keep two processes"):
        run(stores, OUT)
    assert not list(place(OUT).sizes())


def test_two_processes_share_one_output(stores, calm, gate, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(lambda number: run(stores, OUT, Shard(number, 2)), (1, 2)))
    assert all(report is not None for report in reports)
    run(stores, OUT)
    assert fetched(tmp_path) == calm
