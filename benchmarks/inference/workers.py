"""Dask against one process, and two workers against one; every process computes in one thread.

Started by ``bench_infer.py``, which sets ``OMP_NUM_THREADS=1``; prints JSON.

Several slides, in the steady state: workers were started, and predicted a slide, before the clock
runs, as on a cluster, where that takes its time once. All take turns, so that what else is going on
meets all of them. Rates are of tiles that were predicted: that is what dask itself costs. Times are
of the slides: they count what is predicted twice because neighbouring parts share a row of tiles,
too. CPU time is that of all processes at work, and disturbed less than the clock.

Two processes without dask, each with half of the slides, show what the cores allow; empty tasks
show what dask itself takes for a part.
"""

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from distributed import Client, wait
from measure import Ratio, Results, medians

from wsi_seg.classes import ClassTable
from wsi_seg.inference.distribute import DaskExecutor, connected
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.part_queue import PartQueue
from wsi_seg.inference.parts import Part
from wsi_seg.inference.run import infer_with
from wsi_seg.inference.run_plan import plan_inference
from wsi_seg.inference.runner import RunStats
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.seams import Steps
from wsi_seg.inference.task import StripTask
from wsi_seg.models import ModelCard, build_network, save_checkpoint
from wsi_seg.predict.ensemble import Model, read_model
from wsi_seg.predict.predictor import PrecisionDrift
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.testing.stores import make_store

CHOSEN = InferOptions(batch=8, strip_px=512)
# Parts of nothing that are sent to a worker and back, one after the other, to time dask's own way.
PARTS = 200


@dataclass
class Turns:
    """Seconds by the clock and of all CPUs, of each turn; and the tiles of one."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tiles: int = 0

    @property
    def rates(self) -> list[float]:
        """Tiles per second of each turn."""
        return [self.tiles / one for one in self.wall]

    @property
    def cpu_ms(self) -> list[float]:
        """Milliseconds of CPU for a tile in each turn."""
        return [one / self.tiles * 1000 for one in self.cpu]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for number in range(options.slides):
        make_store(options.folder / "all.zarr", f"slide{number}", 1024, 256)
    make_store(options.folder / "one.zarr", "slide", 512, 256)
    card = ModelCard(
        architecture="Unet",
        encoder=options.encoder,
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=0.5,
        tile_px=128,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    path = options.folder / "network.safetensors"
    save_checkpoint(path, build_network(card.spec), card)
    found, part_ms, empty_ms = measure(path, options)
    serial, one, two, processes = found.values()
    ratios = {
        "one worker / serial, tiles/s": Ratio.of(one.rates, serial.rates),
        "two workers / one, tiles/s": Ratio.of(two.rates, one.rates),
        "two processes without dask / serial, tiles/s": Ratio.of(processes.rates, serial.rates),
        "two workers / two processes without dask, tiles/s": Ratio.of(two.rates, processes.rates),
        "one worker / serial": Ratio.of(serial.wall, one.wall),
        "two workers / one": Ratio.of(one.wall, two.wall),
        "CPU time of a tile, one worker / serial": Ratio.of(one.cpu_ms, serial.cpu_ms),
        "CPU time of a tile, two workers / serial": Ratio.of(two.cpu_ms, serial.cpu_ms),
        "tiles, one worker / serial": Ratio.once(one.tiles / serial.tiles),
        "tiles, two workers / serial": Ratio.once(two.tiles / serial.tiles),
    }
    figures = medians({name: turns.wall for name, turns in found.items()}, "s", 2)
    figures |= medians({name: turns.cpu_ms for name, turns in found.items()}, "ms of CPU a tile", 2)
    ways = {"scheduler, client and messages": part_ms, "dask, of nothing": empty_ms}
    figures |= medians(ways, "ms a part", 2)
    Results(ratios, figures).show(as_json=True)


def measure(
    path: Path, options: argparse.Namespace
) -> tuple[Mapping[str, Turns], list[float], list[float]]:
    """Time all slides here, on one worker, on two and in two processes; and parts of nothing."""
    model, out = read_model([path]), options.folder / "pred.zarr"
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(2, spawn))
        clients: dict[str, Client | None] = {"serial": None}
        for name in ("local:1", "local:2"):
            clients[name] = stack.enter_context(connected(name))
        executors = {
            name: client and stack.enter_context(DaskExecutor(client, model, CHOSEN))
            for name, client in clients.items()
        }
        found = {name: Turns() for name in (*clients, "two processes")}
        for kind in ("one", *["all"] * options.repeats):
            stores = list(open_collection(options.folder / f"{kind}.zarr"))
            for name, client in clients.items():
                shutil.rmtree(out, ignore_errors=True)
                before = cpu_s(client)
                report = infer_with(
                    model, stores, out, CHOSEN, executor=executors[name], progress=Silent()
                )
                if kind == "all":
                    found[name].wall.append(report.seconds)
                    found[name].cpu.append(cpu_s(client) - before)
                    found[name].tiles = report.tiles
            wall, cpu, tiles = in_processes(pool, path, options.folder / f"{kind}.zarr", out)
            if kind == "all":
                found["two processes"].wall.append(wall)
                found["two processes"].cpu.append(cpu)
                found["two processes"].tiles = tiles
        client = clients["local:1"]
        assert client is not None
        parts = parts_of(model, options.folder / "all.zarr")
        ours = [way_ms(client, parts) for _ in range(options.repeats)]
        return found, ours, [empty_ms(client) for _ in range(options.repeats)]


def in_processes(
    pool: ProcessPoolExecutor, path: Path, collection: Path, out: Path
) -> tuple[float, float, int]:
    """Seconds, those of both CPUs, and tiles, where each of two processes has half the slides."""
    halves = [
        pool.submit(predict_half, path, collection, out.with_name(f"{half}.zarr"), half)
        for half in (0, 1)
    ]
    seconds, cpu, tiles = zip(*(half.result() for half in halves), strict=True)
    return max(seconds), sum(cpu), sum(tiles)


def predict_half(path: Path, collection: Path, out: Path, half: int) -> tuple[float, float, int]:
    """Predict every second slide; return the seconds, those of the CPU, and the tiles."""
    torch.set_num_threads(1)
    stores = list(open_collection(collection))
    shutil.rmtree(out, ignore_errors=True)
    before = time.process_time()
    report = infer_with(
        read_model([path]), stores[half::2] or stores, out, CHOSEN, progress=Silent()
    )
    return report.seconds, time.process_time() - before, report.tiles


def cpu_s(client: Client | None) -> float:
    """Seconds of CPU of this process, the scheduler in it, and the workers."""
    workers = client.run(time.process_time).values() if client else ()
    return time.process_time() + sum(workers)


def parts_of(model: Model, collection: Path) -> list[Part]:
    """As many parts as are sent, each the first strip of a slide."""
    (store, *_) = open_collection(collection)
    plan = plan_inference([store], model, CHOSEN)
    task = StripTask(store, plan.slides[0], collection / "nowhere", frozenset({0}))
    return [(task,)] * PARTS


def way_ms(client: Client, parts: list[Part]) -> float:
    """Milliseconds from one part to the next where a worker has nothing to do."""
    started = time.perf_counter()
    count = sum(1 for _ in PartQueue(client, answer, answer, parts))
    return (time.perf_counter() - started) / count * 1000


def empty_ms(client: Client) -> float:
    """Milliseconds from one empty task to the next."""
    started = time.perf_counter()
    wait(client.map(bool, range(PARTS), pure=False))
    return (time.perf_counter() - started) / PARTS * 1000


def answer(part: object) -> tuple[RunStats, list[list[StripRecord]]]:
    """Return what a worker does for a part of one strip."""
    checksums = {f"{level}/c/0/0/0": 2**31 + level for level in range(4)}
    record = StripRecord(0, Steps(1, 2, 3), ((1, 0),), ((1, 0),), checksums)
    return RunStats(45, PrecisionDrift(), {}), [[record]]


if __name__ == "__main__":
    main()
