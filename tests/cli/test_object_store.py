"""Commands on addresses: what they say and record names no password and no signature."""

import itertools
import json
import logging
from pathlib import Path

import pytest

from tests.commands import run, run_json
from tests.makers.coordinates import write_coordinate_tiff
from tests.object_store import BUCKET, object_store
from wsi_seg.files import object_store as clients
from wsi_seg.files.object_path import place
from wsi_seg.geometry import Extent

ROOT = f"s3://{BUCKET}"
SECRETS = ("me:", "word", "Signature", "12ab", "not-to-be-seen")


@pytest.fixture
def gate(tmp_path):
    write_coordinate_tiff(
        tmp_path / "a.tif", extents=[Extent(height=300, width=400)], codec="jpeg", tile_px=64
    )
    with object_store() as gate:
        place(f"{ROOT}/in/a.tif").write_bytes((tmp_path / "a.tif").read_bytes())
        yield gate


def test_tile_infer_status_and_export(gate, tmp_path):
    tiled = run_json("tile", f"{ROOT}/in", "--out", f"{ROOT}/s.zarr", "--stage", tmp_path / "st")
    assert tiled["status"] == "done"
    found = run_json(
        "infer", f"{ROOT}/s.zarr", "--out", f"{ROOT}/p.zarr", "--overlap", "0",
        "--stage", tmp_path / "st",
    )  # fmt: skip
    assert found["out"] == f"{ROOT}/p.zarr"
    assert run_json("status", f"{ROOT}/p.zarr")["complete"]
    keys = gate.names()
    done = run(
        "export", f"{ROOT}/p.zarr", "--slides", f"{ROOT}/s.zarr", "--geojson", tmp_path / "found"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "found" / "a.geojson").is_file()
    new = gate.names() - keys
    assert new
    assert all("/labels/" in key for key in new)  # the decision, and no lock
    gate.rule = lambda method, _path: "403" if method not in ("GET", "HEAD") else None
    again = run(
        "export", f"{ROOT}/p.zarr", "--slides", f"{ROOT}/s.zarr", "--geojson", tmp_path / "again"
    )
    assert again.exit_code == 0, again.output  # from a bucket that is only read
    gate.rule = lambda _method, _path: None
    assert run("verify", f"{ROOT}/p.zarr").exit_code == 0
    for key in keys:
        content = place(f"{ROOT}/{key}").read_bytes()
        assert not any(secret.encode() in content for secret in SECRETS), key


def test_what_grants_access_is_in_no_message(gate, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clients, "_TRIES", 1)
    address = "https://me:word@127.0.0.1:9/dir/a.svs?X-Amz-Signature=12ab"
    with caplog.at_level(logging.DEBUG):
        for words in (
            ("tile", address, "--out", tmp_path / "s.zarr"),
            ("infer", address, "--out", tmp_path / "p.zarr"),
            ("infer", address, "--out", address),
            ("status", address),
            ("export", address, "--geojson", tmp_path / "found"),
        ):
            result = run(*words, "--json")
            assert result.exit_code == 1, (words, result.output)
            assert json.loads(result.stdout.splitlines()[-1])["status"] == "failed"
            assert "127.0.0.1:9" in result.output
            for text in (result.output, caplog.text):
                assert not any(secret in text for secret in SECRETS), (words, text)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".zarr"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("tile", "a.tif", "--out", "https://127.0.0.1:9/s.zarr"), "read-only"),
        (("tile", "ftp://host/a.svs"), "expected a folder, s3://BUCKET"),
        (("tile", f"{ROOT}/in", "--verify", "--out", "s.zarr"), "expected slides of this machine"),
        (("info", f"{ROOT}/in/a.tif"), "expected a local file"),
        (("train", "never.yaml", "--out", "s3://bucket/run"), "expected a folder of this machine"),
        (("export", f"{ROOT}/p.zarr", "--geojson", "s3://bucket/x"), "p.zarr"),
        (("tile", "a.tif", "--out", "s3://no-such-bucket/s.zarr"), "no such bucket"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(gate, tmp_path, words, reason, monkeypatch):
    monkeypatch.setattr(clients, "_TRIES", 0)
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 1
    assert reason in result.output
    assert not Path("s3:").exists()
    assert not Path("https:").exists()


def denied(gate, methods, after=0):
    """Answer 403 to requests of some methods after so many of them."""
    left = itertools.count(after, -1)
    gate.rule = lambda method, _path: "403" if method in methods and next(left) <= 0 else None


def require_whole_slides(gate, name):
    """Of each slide in a collection there is all, or no metadata."""
    gate.rule = lambda _method, _path: None
    keys = {key.removeprefix(f"{name}/") for key in gate.names() if key.startswith(f"{name}/")}
    for slide in ("a", "b"):
        own = {key for key in keys if key.startswith(f"{slide}/")}
        assert f"{slide}/zarr.json" not in own or f"{slide}/.wsi_seg/digests.json" in own
    return keys


@pytest.mark.parametrize("after", [0, 3, 12, 25, 40])
def test_credentials_that_expire_meanwhile(gate, tmp_path, after):
    place(f"{ROOT}/in/b.tif").write_bytes((tmp_path / "a.tif").read_bytes())
    words = ("tile", f"{ROOT}/in", "--out", f"{ROOT}/s.zarr")
    denied(gate, {"PUT"}, after)
    refused = run(*words)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, SystemExit)
    assert "access was denied" in refused.output
    assert "403 Forbidden); expected credentials that have not expired and may" in refused.output
    require_whole_slides(gate, "s.zarr")
    assert run_json(*words)["status"] == "done"
    keys = require_whole_slides(gate, "s.zarr")
    assert {"a/zarr.json", "b/zarr.json"} < keys
    assert not [key for key in keys if "/partial/" in key]
    assert run("verify", f"{ROOT}/s.zarr").exit_code == 0


@pytest.mark.parametrize("shard", [(), ("--shard", "1/1")])
def test_credentials_that_may_not_delete_are_refused_before_any_work(gate, shard):
    words = ("tile", f"{ROOT}/in", "--out", f"{ROOT}/s.zarr", *shard)
    denied(gate, {"POST", "DELETE"})
    refused = run(*words)
    assert refused.exit_code == 1
    assert "access was denied" in refused.output
    assert "may read, write, list and delete there" in refused.output
    assert not require_whole_slides(gate, "s.zarr")
    assert run_json(*words)["status"] == "done"


def test_credentials_that_may_not_list_or_read(gate):
    assert run_json("tile", f"{ROOT}/in", "--out", f"{ROOT}/s.zarr")["status"] == "done"
    for verb, after in itertools.product(("tile", "status", "infer", "verify"), (0, 2)):
        words = {"tile": (f"{ROOT}/in", "--out", f"{ROOT}/t.zarr"), "infer": (f"{ROOT}/s.zarr",)}
        denied(gate, {"GET", "HEAD"}, after)
        refused = run(verb, *words.get(verb, (f"{ROOT}/s.zarr",)))
        assert refused.exit_code == 1, (verb, refused.output)
        assert isinstance(refused.exception, SystemExit), verb
        assert "access was denied" in refused.output


def test_a_slide_whose_name_makes_too_long_a_key_fails_alone(gate, tmp_path):
    name, folder = "n" * 200, "/".join(["d" * 200] * 4)
    for slide in ("a", name):
        place(f"{ROOT}/long/{slide}.tif").write_bytes((tmp_path / "a.tif").read_bytes())
    failed = run("tile", f"{ROOT}/long", "--out", f"{ROOT}/{folder}/s.zarr")
    assert failed.exit_code == 1
    assert "1 of 2 slides failed, 1 done" in failed.output
    assert "bytes; expected at most 1,024; write to a shorter address" in failed.output
    visible = {key for key in gate.names() if key.startswith(folder) and ".wsi_seg" not in key}
    assert {key.removeprefix(f"{folder}/s.zarr/").split("/")[0] for key in visible} == {
        "a",
        "zarr.json",
    }
