"""A slide in an object store, predicted into it, against the same slide in a folder.

``python benchmarks/bench_objects.py [--side PX] [--latency-ms MS] [--json]``. The object store is a
real S3 server (moto) on loopback, in a process of its own on the same cores, every answer of which
takes 30 ms more; with ``--side 32768`` the slide has 3.2 GB of pixels. Both predictions have to be
the same bytes. Requests of a prediction are counted. Single requests are measured first: spans of
shards, and whole shards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import imagecodecs
import numpy as np
import psutil
import torch
from measure import Ratio, Results, in_turn, medians
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.files.object_path import REQUESTS, ObjectPath, object_path, place
from wsi_seg.geometry import Extent
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.inference.waits import describe_shares
from wsi_seg.models import ModelCard
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, create_multiscale, open_collection, update_names
from wsi_seg.store.arrays import read_level_array
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.info import StoreInfo
from wsi_seg.store.layout import Layout, LevelLayout
from wsi_seg.store.shards import write_shard
from wsi_seg.testing.stores import digests

SERVER = Path(__file__).parent / "objects" / "server.py"
BUCKET = "bench"
CHUNK_PX, SHARD_CHUNKS, STREAMS = 512, 8, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192, help="of the slide, in pixels")
    parser.add_argument("--latency-ms", type=float, default=30.0)
    parser.add_argument("--layers", type=int, default=2, help="of the network")
    parser.add_argument("--threads", type=int, help="of the network; 1 leaves a core to the server")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, object_store(options.latency_ms / 1e3) as root:
        (single_requests(root, options) | slides(root, Path(folder), options)).show(
            as_json=options.json
        )


@contextmanager
def object_store(latency_s: float) -> Iterator[ObjectPath]:
    """Serve an empty bucket, which the environment names meanwhile."""
    command = [sys.executable, str(SERVER), str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
        }
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        root = object_path(place(f"s3://{BUCKET}"))
        assert root is not None
        try:
            yield root
        finally:
            server.terminate()


def single_requests(root: ObjectPath, options: argparse.Namespace) -> Results:
    """Measure the requests that stores make, as many at a time as they do."""
    data, count = os.urandom(2_000_000), options.requests
    names = [root / "single" / str(number) for number in range(count // 10)]

    def rate(work: Callable[[int], object], times: int) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(REQUESTS) as threads:
            list(threads.map(work, range(times)))
        return round(times / (time.perf_counter() - started), 1)

    def read_one(n: int) -> object:
        return names[n % len(names)].read_spans([(n % 9 * 200_000, 100_000)])

    written = rate(lambda n: names[n].write_bytes(data), len(names))
    read = rate(read_one, count)
    return Results(figures={"writes of 2 MB/s": written, "reads of 100 kB/s": read})


def slides(root: ObjectPath, folder: Path, options: argparse.Namespace) -> Results:
    make_slide(folder / "store.zarr", options.side)
    upload(folder / "store.zarr", root / "store.zarr")
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    for _ in range(options.layers - 2):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    torch.manual_seed(0)
    network = nn.Sequential(*layers, nn.Conv2d(8, 1, 1))
    card = ModelCard(
        architecture="Unet", encoder="resnet18", in_channels=3,
        classes=ClassTable.named(["thing"]), mpp=None, tile_px=512,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip
    how = InferOptions(overlap=0.25, batch=4, precision="fp32", device="cpu")

    figures: dict[str, object] = {}

    def predict(kind: str, source: Path, out: Path) -> float:
        requests()
        started, served, used = time.perf_counter(), server_cpu_s(), time.process_time()
        report = infer(open_collection(source), network, out, how, card=card, progress=Silent())
        wall = time.perf_counter() - started
        figures[f"time, {kind}"] = describe_shares(report.shares)
        figures[f"requests, {kind}"] = requests()
        figures[f"CPU of the server, s, {kind}"] = round(server_cpu_s() - served, 1)
        figures[f"CPU of the prediction, s, {kind}"] = round(time.process_time() - used, 1)
        return report.pixels / wall / 1e6

    rates = in_turn(
        {
            "folder": lambda turn: predict(
                "folder", folder / "store.zarr", folder / f"p{turn}.zarr"
            ),
            "object store": lambda turn: predict(
                "bucket", root / "store.zarr", root / f"p{turn}.zarr"
            ),
        },
        options.repeats,
    )
    fetch(root / "p0.zarr", folder / "fetched.zarr")
    if digests(folder / "fetched.zarr") != digests(folder / "p0.zarr"):
        raise SystemExit("predictions in a folder and in an object store differ")
    nbytes = sum(f.stat().st_size for f in (folder / "store.zarr").rglob("*") if f.is_file())
    figures |= {"pixels of the slide, GB": round(options.side**2 * 3 / 1e9, 2),
                "file, GB": round(nbytes / 1e9, 2)}  # fmt: skip
    ratio = Ratio.of(rates["object store"], rates["folder"])
    return Results(
        {"object store with latency / folder": ratio}, figures | medians(rates, "Mpx/s", 2)
    )


def server_cpu_s() -> float:
    """CPU seconds of the server, which shares this machine's cores."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return sum(used.user + used.system for used in times)


def requests() -> dict[str, int]:
    """Count the requests since this was last asked, by method."""
    with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/-/requests") as answer:
        found: dict[str, int] = json.load(answer)
    return found


def make_slide(collection: Path, side: int) -> None:
    """Write a slide of JPEG chunks in which nothing is missing."""
    create_collection(collection)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (STREAMS, CHUNK_PX // 4, CHUNK_PX // 4, 3), np.uint8)
    tiles = noise.repeat(4, 1).repeat(4, 2)
    streams = [bytes(imagecodecs.jpeg8_encode(tile, level=80)) for tile in tiles]
    extent, shard = Extent(height=side, width=side), CHUNK_PX * SHARD_CHUNKS
    layout = LevelLayout(
        extent,
        Extent(height=CHUNK_PX, width=CHUNK_PX),
        Extent(height=shard, width=shard),
        Encoding("jpeg"),
    )
    path = collection / "slide"
    layout = Layout(levels=(layout,), channels=3, mpp=0.5)
    create_multiscale(path, layout, StoreInfo().to_json())
    array = read_level_array(path / "0")
    for row in range(-(-side // shard)):
        for column in range(-(-side // shard)):
            picked = rng.integers(0, STREAMS, SHARD_CHUNKS**2)
            write_shard(array.shard_path(row, column), [streams[one] for one in picked])
    update_names(collection)


def upload(folder: Path, root: ObjectPath) -> None:
    """Copy a folder into the bucket."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    targets = [root / file.relative_to(folder) for file in files]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda to, file: to.write_bytes(file.read_bytes()), targets, files))


def fetch(root: ObjectPath, folder: Path) -> None:
    """Copy what is in the bucket into a folder."""
    for path in root.sizes():
        file = folder / path.relative_to(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
