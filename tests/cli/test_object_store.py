"""Commands on addresses: what they say and record names no password and no signature."""

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
