"""Predictions in an object store: the bytes of a folder, whatever is killed or fails on the way."""

import random
from pathlib import Path

import pytest

from tests.inference.test_shards import Stop, run
from tests.object_store import BUCKET, object_store
from wsi_seg.errors import StoreNotFoundError
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
