"""Dask against one process, and two workers against one; every process has one thread.

Started by ``bench_infer.py``, which sets ``OMP_NUM_THREADS=1``; prints JSON.
Workers are warm: they predicted a small slide before.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
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
    found = {name: measure(name, path, options) for name in ("serial", "local:1", "local:2")}
    wall = {name: walls for name, (walls, _) in found.items()}
    cpu = {name: cpus for name, (_, cpus) in found.items()}
    ratios = {
        "one worker / serial": Ratio.of(wall["serial"], wall["local:1"]),
        "two workers / one": Ratio.of(wall["local:1"], wall["local:2"]),
        "CPU time, one worker / serial": Ratio.of(cpu["local:1"], cpu["serial"]),
    }
    Results(ratios, medians(wall, "s", 2)).show(as_json=True)


def measure(
    name: str, checkpoint: Path, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Seconds of predicting the large slide: by the clock, and of all processes' CPUs."""
    model, chosen = read_model([checkpoint]), InferOptions(batch=4, strip_px=512)
    if name == "serial":
        return run(model, chosen, options, None, time.process_time)
    with connected(name) as client:
        executor = DaskExecutor(client, model, chosen)

        def cpu() -> float:
            return time.process_time() + sum(client.run(time.process_time).values())

        return run(model, chosen, options, executor, cpu)


def run(
    model: object,
    chosen: InferOptions,
    options: argparse.Namespace,
    executor: DaskExecutor | None,
    cpu: Callable[[], float],
) -> tuple[list[float], list[float]]:
    walls, cpus = [], []
    out = options.folder / "pred.zarr"
    for kind in ("small", *["large"] * options.repeats):
        shutil.rmtree(out, ignore_errors=True)
        stores = list(open_collection(options.folder / f"{kind}.zarr"))
        before = cpu()
        report = infer_with(model, stores, out, chosen, executor=executor, progress=Silent())
        walls.append(report.seconds)
        cpus.append(cpu() - before)
    return walls[1:], cpus[1:]


if __name__ == "__main__":
    main()
