"""Many objects of a bucket at a time: written, and looked for by listings."""

from collections import Counter

import pytest

from tests.object_store import in_bucket, object_store
from wsi_seg.errors import OutputError
from wsi_seg.files.object_folder import put_all


@pytest.fixture(params=["s3", "az", "gs"])
def scheme(request):
    return request.param


def test_objects_are_written_and_found_by_one_listing_of_each_folder(scheme):
    with object_store(scheme) as gate:
        root = in_bucket("x", scheme)
        content = {root / f"{n % 2}/{n}": b"%d" % n for n in range(20)} | {root / "2/0": b"alone"}
        put_all(content)
        assert Counter(method for method, _ in gate.seen) == {"PUT": 21, "GET": 2, "HEAD": 1}
        assert {path: path.read_bytes() for path in root.sizes()} == content


def test_one_listing_finds_all_within_a_folder(scheme):
    with object_store(scheme) as gate:
        root = in_bucket("x", scheme)
        put_all({root / str(n) / "zarr.json": b"{}" for n in range(5)}, root)
        assert Counter(method for method, _ in gate.seen) == {"PUT": 5, "GET": 1}


def test_what_must_not_exist_is_removed(scheme):
    with object_store(scheme):
        root = in_bucket("x", scheme)
        (root / "old").write_bytes(b"old")
        put_all({root / "old": None, root / "never": None, root / "new": b"new"})
        assert list(root.sizes()) == [root / "new"]


@pytest.mark.parametrize("before", [b"", b"1", b"longer"])
def test_a_lost_write_is_repeated_even_if_the_object_existed(before, scheme):
    with object_store(scheme) as gate:
        root = in_bucket("x", scheme)
        (root / "1").write_bytes(before)
        gate.rule = lambda method, _path: "lost" if method == "PUT" and not gate.faults else None
        put_all({root / "1": b"2", root / "2": b"2"})
        assert gate.faults
        assert {path.read_bytes() for path in root.sizes()} == {b"2"}


def test_writes_that_are_always_lost_end_with_an_error(scheme):
    with object_store(scheme) as gate:
        root = in_bucket("x", scheme)
        gate.rule = lambda method, _path: "lost" if method == "PUT" else None
        with pytest.raises(OutputError, match="x/1 was accepted 5 times, and is not there"):
            put_all({root / "1": b"1"})
