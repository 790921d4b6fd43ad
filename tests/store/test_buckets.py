"""Processes that share a bucket: whose listings are late, and whose clocks differ."""

import contextlib
import json
import threading
import time
from dataclasses import asdict

import pytest

from tests.object_store import BUCKET, in_bucket, object_store, sent
from wsi_seg.errors import StoreNotFoundError
from wsi_seg.store import open_collection, update_names
from wsi_seg.store import presence as presence_module
from wsi_seg.store.claims import Claims
from wsi_seg.store.presence import Note, Presence
from wsi_seg.store.turns import areas
from wsi_seg.testing.stores import make_store

ROOT = in_bucket("work")
FAR = Note("test", host="far", pid=1, started="2026-01-01", kernel="of another machine")


@pytest.fixture
def gate():
    with object_store() as gate:
        yield gate


@pytest.fixture
def claims(gate):
    """Claims of two processes."""
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(Presence(ROOT / "run", Note.own("test"))) for _ in range(2)]
        yield [Claims(ROOT / "shared", one) for one in both]


def test_a_listing_that_stays_behind_is_not_asked_for_ever(gate, claims):
    one, two = claims
    (ROOT / "shared" / "part.0").write_bytes(b"ended-1-2")
    assert one.take("part")
    app, kept = gate.app, {}

    def stale(environ, start_response):
        """Answer what is listed as it was answered first."""
        query = environ["QUERY_STRING"]
        if "list-type=2" not in query:
            return app(environ, start_response)
        if query not in kept:
            head = []
            body = b"".join(app(environ, lambda *line: head.append(line)))
            kept[query] = head[0], body
        head, body = kept[query]
        start_response(*head)
        return [body]

    gate.app = stale
    assert not two.take("part")
    one.give_back("part")
    gate.seen.clear()
    assert not two.take("part")  # it cannot know
    assert len(gate.seen) < 200
    assert two.holder("part") is None
    gate.app = app
    assert two.take("part")
    assert not one.take("part")


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_takes_nothing_from_a_process(hours, gate, claims, monkeypatch):
    (ROOT / "run" / "far-1-2.alive").write_bytes(json.dumps(asdict(FAR)).encode())
    (ROOT / "shared" / "part.0").write_bytes(b"far-1-2")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    for one in claims * 2:
        assert not one.take("part")
        assert one.holder("part") == "far-1-2"
    monkeypatch.setattr(presence_module, "LEASE", 0.0)
    assert claims[0].take("part")  # there was no sign for as long as it watched


def test_the_list_of_slides_is_read_once_however_many_are_opened(gate, tmp_path):
    for name in "abc":
        make_store(tmp_path / "s.zarr", name, 30, 20)
    update_names(tmp_path / "s.zarr")
    slides = open_collection(sent(tmp_path / "s.zarr", in_bucket("s.zarr")))
    gate.seen.clear()
    assert areas(slides) == {"a": 600.0, "b": 600.0, "c": 600.0}
    assert gate.seen.count(("GET", f"/{BUCKET}/s.zarr/zarr.json")) == 1
    assert len(gate.seen) <= 1 + 2 * 3
    assert "d" not in slides
    with pytest.raises(StoreNotFoundError, match="got slide 'd'; it has: a, b, c"):
        slides["d"]


def test_a_heartbeat_on_its_way_does_not_outlive_its_process(gate, monkeypatch):
    monkeypatch.setattr(presence_module, "BEAT", 0.01)
    beats = threading.Event()
    with Presence(ROOT / "run", Note.own("test")) as presence:

        def slow(method, path):
            if method == "PUT" and path.endswith(f"{presence.id}.alive"):
                beats.set()
                return "slow"
            return None

        gate.rule = slow
        assert beats.wait(10)
    time.sleep(1)  # twice what a slow request takes
    assert presence.watcher.owners() == []
