"""Dask against one process, and two workers against one; every process has one thread.

Started by ``bench_infer.py``, which sets ``OMP_NUM_THREADS=1``; prints JSON.
Workers are warm: they predicted a small slide before. All take turns, so that what else is going on
meets all of them; CPU time is that of all processes at work, and disturbed less than the clock.
"""

import argparse
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from distributed import Client
from measure import Ratio, Results, medians

from wsi_seg.classes import ClassTable
from wsi_seg.inference.distribute import DaskExecutor, connected
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.models import ModelCard, build_network, save_checkpoint
from wsi_seg.predict.ensemble import read_model
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.testing.stores import make_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_store(options.folder / "large.zarr", "slide", 8704, 768)
    make_store(options.folder / "small.zarr", "slide", 1024, 256)
    card = ModelCard(
        architecture="Unet",
        encoder=options.encoder,
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=0.5,
        tile_px=256,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    path = options.folder / "network.safetensors"
    save_checkpoint(path, build_network(card.spec), card)
    wall, cpu, tiles = measure(path, options)
    ratios = {
        "one worker / serial": Ratio.of(wall["serial"], wall["local:1"]),
        "two workers / one": Ratio.of(wall["local:1"], wall["local:2"]),
        "CPU time, one worker / serial": Ratio.of(cpu["local:1"], cpu["serial"]),
        "CPU time, two workers / serial": Ratio.of(cpu["local:2"], cpu["serial"]),
        "tiles, one worker / serial": Ratio.once(tiles["local:1"] / tiles["serial"]),
        "tiles, two workers / serial": Ratio.once(tiles["local:2"] / tiles["serial"]),
    }
    Results(ratios, medians(wall, "s", 2) | medians(cpu, "s of CPU", 2)).show(as_json=True)


def measure(
    checkpoint: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, int]]:
    """Seconds of predicting the large slide, by the clock and of all CPUs, and tiles, by turns."""
    model, chosen = read_model([checkpoint]), InferOptions(batch=4, strip_px=512)
    with ExitStack() as stack:
        clients: dict[str, Client | None] = {"serial": None}
        for name in ("local:1", "local:2"):
            clients[name] = stack.enter_context(connected(name))
        executors = {
            name: client and DaskExecutor(client, model, chosen) for name, client in clients.items()
        }
        wall: dict[str, list[float]] = {name: [] for name in clients}
        cpu: dict[str, list[float]] = {name: [] for name in clients}
        tiles: dict[str, int] = {}
        for kind in ("small", *["large"] * options.repeats):
            for name, client in clients.items():
                out = options.folder / "pred.zarr"
                shutil.rmtree(out, ignore_errors=True)
                stores = list(open_collection(options.folder / f"{kind}.zarr"))
                before = cpu_s(client)
                report = infer_with(
                    model, stores, out, chosen, executor=executors[name], progress=Silent()
                )
                if kind == "large":
                    wall[name].append(report.seconds)
                    cpu[name].append(cpu_s(client) - before)
                    tiles[name] = report.tiles
    return wall, cpu, tiles


def cpu_s(client: Client | None) -> float:
    """Seconds of CPU of this process, the scheduler in it, and the workers."""
    workers = client.run(time.process_time).values() if client else ()
    return time.process_time() + sum(workers)


if __name__ == "__main__":
    main()
