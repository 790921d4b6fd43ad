"""Stores behind addresses: read from a real S3 server and a real web server, both on loopback."""

import functools
import http.server
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.address import is_remote
from wsi_seg.errors import OutputError, StoreError, StoreNotFoundError
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.labels import write_tissue, write_values
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection, shared_cache
from wsi_seg.store.layout import update_names
from wsi_seg.testing.store_conformance import check_store, zarr_levels
from wsi_seg.testing.stores import make_store

s3fs = pytest.importorskip("s3fs", reason="needs the extra `remote`")
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
    moto = pytest.importorskip("moto.server", reason="needs moto, of the extra `dev`")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        files = s3fs.S3FileSystem()
        files.mkdir("slides")
        files.put(str(local), "slides/s.zarr", recursive=True)
        for file in (local.parent / "named.zarr").rglob("*"):  # `put` reads names as patterns
            if file.is_file():
                files.pipe_file(f"slides/{file.relative_to(local.parent)}", file.read_bytes())
        yield "s3://slides/s.zarr"
    server.stop()


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
    if "::" in name and address.startswith("s3"):
        with pytest.raises(StoreError, match="'::' joins addresses"):
            collection[name]
        return
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


def test_a_server_that_is_not_there():
    with pytest.raises(StoreError, match=r"cannot read http://127.0.0.1:9.*Cannot connect"):
        open_collection(Path("http://127.0.0.1:9/s.zarr"))


def test_nothing_is_written_there(address):
    with pytest.raises(OutputError, match="read only"):
        create_collection(Path(address))
    store = open_collection(Path(address))["a"]
    with pytest.raises(OutputError, match="read only"):
        write_tissue(store)


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
