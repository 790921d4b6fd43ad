"""Stores behind addresses: read from a real S3 server and a real web server, both on loopback."""

import contextlib
import functools
import http.server
import os
import pickle
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.makers.coordinates import write_coordinate_tiff
from tests.object_store import BUCKET, object_store
from wsi_seg.errors import AddressError, OutputError, StoreError, StoreNotFoundError
from wsi_seg.files import object_store as clients
from wsi_seg.files.address import is_remote, without_secrets
from wsi_seg.files.object_path import place
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.labels import write_tissue, write_values
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection, shared_cache
from wsi_seg.store.slide_list import update_names
from wsi_seg.testing.store_conformance import check_store, zarr_levels
from wsi_seg.testing.stores import make_store

EXTENT = Extent(height=700, width=900)
NAMES = (
    "a#b", "a?b", "a;b", "a%20b", "a%23b", "a&b=c", "with space", 'q"uote', "ap'os", "a+b", "[x]*",
    "日本語", "C:d", "a::b", "~x", "{y}", "a@b", "back\\slash",
)  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    write_coordinate_tiff(folder / "a.tif", extents=[EXTENT], codec="jpeg", tile_px=64)
    tile_slides([folder / "a.tif"], folder / "s.zarr", progress=Silent())
    for seed, name in enumerate(NAMES):
        make_store(folder / "named.zarr", name, 70 + seed, 90 + seed)
        write_tissue(open_collection(folder / "named.zarr")[name])
        label = open_collection(folder / "named.zarr")[name]
        write_values(label, name, np.full((7, 9), 5, np.uint8), downsample=10.0)
    update_names(folder / "named.zarr")
    return folder / "s.zarr"


@pytest.fixture(scope="module")
def bucket(local):
    """Address of the collection in a bucket."""
    with object_store():
        for file in local.parent.rglob("*"):
            if file.is_file():
                inside = file.relative_to(local.parent).parts
                place(f"s3://{BUCKET}").joinpath(*inside).write_bytes(file.read_bytes())
        yield f"s3://{BUCKET}/s.zarr"


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files, whole or one span of bytes, and lists no folder."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, span = path.read_bytes(), self.headers.get("Range")
        if span:
            begin, end = span.removeprefix("bytes=").split("-")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
            data = data[int(begin) : int(end) + 1]
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(local):
    """Address of the collection on a web server."""
    handler = functools.partial(_Ranges, directory=str(local.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/s.zarr"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["bucket", "site"])
def address(request):
    return request.getfixturevalue(request.param)


def test_every_pixel_arrives(address, local):
    here, there = open_collection(local)["a"], open_collection(Path(address))["a"]
    assert there.pyramid == here.pyramid
    assert there.attributes == here.attributes
    shared_cache().resize(0)
    shared_cache().resize(2**28)
    check_store(
        lambda: open_collection(Path(address))["a"].image, zarr_levels(local / "a"), mpp=0.5
    )
    levels = zarr_levels(local / "a" / "labels" / "tissue")
    label = here.label("tissue")
    check_store(
        lambda: open_collection(Path(address))["a"].label("tissue"), levels, mpp=label.pyramid.mpp
    )


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_part_of_an_address(address, local, name):
    here = open_collection(local.parent / "named.zarr")[name]
    collection = open_collection(Path(address.replace("s.zarr", "named.zarr")))
    there = collection[name]
    extent = here.pyramid.extent
    region = Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    assert there.pyramid == here.pyramid
    assert np.array_equal(there.image.read(region), here.image.read(region))
    assert there.label_names() == here.label_names() == tuple(sorted([name, "tissue"]))
    small = Region(level=0, y=0, x=0, height=7, width=9)
    assert (there.label(name).read(small) == 5).all()


def test_a_store_travels_to_other_processes(address):
    image = pickle.loads(pickle.dumps(open_collection(Path(address))["a"])).image
    assert image.read(Region(level=0, y=3, x=5, height=7, width=9)).shape == (7, 9, 3)


def test_what_is_missing_is_named(address):
    with pytest.raises(StoreNotFoundError, match="no collection of slides at"):
        open_collection(Path(address.replace("s.zarr", "other.zarr")))
    with pytest.raises(StoreNotFoundError, match="got slide 'b'; it has: a"):
        open_collection(Path(address))["b"]


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(clients, "_TRIES", 1)
    with pytest.raises(StoreError, match=r"cannot read http://127.0.0.1:9.*after 1 retries"):
        open_collection(Path("http://127.0.0.1:9/s.zarr"))


def test_nothing_is_written_to_a_web_server(site):
    with pytest.raises(OutputError, match="web servers are read-only"):
        create_collection(place(site.replace("s.zarr", "new.zarr")))
    with pytest.raises((OutputError, AddressError), match="web servers are read-only"):
        write_tissue(open_collection(Path(site))["a"])


def test_a_child_of_a_fork_is_refused_what_its_parent_has_open(address):
    image = open_collection(Path(address))["a"].image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are why it is refused
        child = os.fork()
    if not child:
        refused = 1
        with contextlib.suppress(BaseException):
            try:
                image.read(Region(level=0, y=0, x=0, height=7, width=9), cached=False)
            except StoreError as error:
                refused = 0 if "forked" in str(error) else 2
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_users_and_signatures_are_in_no_text():
    path = place("https://me:word@host.example/dir/a.svs?X-Amz-Signature=12/3&b=4")
    assert path.name == "a.svs"
    for text in (str(path), repr(path), f"{path.parent / 'b.svs'}", path.as_posix()):
        assert not any(secret in text for secret in ("me:", "word", "Signature", "12"))
    again = place(pickle.loads(pickle.dumps(path)))
    assert again == path
    assert "word" in "".join(again.parts)  # it travels to other processes
    said = without_secrets("cannot read https://me:word@host/a?sig=1: 403; s3://b/a?b")
    assert said == "cannot read https://host/a: 403; s3://b/a?b"


def test_a_folded_address_is_spelled_out():
    assert (
        without_secrets("in s3:/bucket/a and c:/b, ./s3:x") == "in s3://bucket/a and c:/b, ./s3:x"
    )


@pytest.mark.parametrize("address", ["ftp://host/a", "S3://bucket/a"])
def test_addresses_that_are_none(address):
    if address.startswith("S3"):
        assert place(address) == Path(address)
        return
    with pytest.raises(StoreError, match="expected a folder, s3://BUCKET"):
        place(address)


def test_a_shard_that_is_gone_is_missing_chunks_and_a_cut_one_is_damaged(site, local, tmp_path):
    # The server's folder is the module's: damage a copy next to it.
    copy = local.parent / "damaged.zarr"
    shutil.copytree(local, copy)
    shards = sorted(path for path in (copy / "a" / "0" / "c").rglob("*") if path.is_file())
    data = shards[0].read_bytes()
    shards[0].write_bytes(data[: len(data) // 2])
    image = open_collection(Path(site.replace("s.zarr", "damaged.zarr")))["a"].image
    place = Region(level=0, y=0, x=0, height=8, width=8)
    with pytest.raises(StoreError, match="damaged"):
        image.read(place)
    shards[0].unlink()
    assert (image.read(place) == 255).all()


def test_addresses_and_paths():
    assert is_remote(Path("s3://bucket/store.zarr"))
    assert is_remote(Path("https:/server/store.zarr"))
    assert not is_remote(Path("slides/a.svs"))
    assert not is_remote(Path("/slides/a:b.svs"))
    assert not is_remote(Path("C:/slides"))
