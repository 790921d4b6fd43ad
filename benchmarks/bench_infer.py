"""End-to-end inference against the bare forward loop of the same model, and against the peers.

All are measured in turn, several times; the ratios of medians are what counts. Peers run in their
own environment (``make bench-env``; left out where it is absent), at their defaults (fp32) and in
our precision, on the same slide with the same weights; that they give the same probabilities is
checked. Run it alone: ``python benchmarks/bench_infer.py [SLIDE] [--json]``. Without a slide it
paints one. The other parts (``--only memory``, ``workers``, ``resume``, ``small``) measure peak
memory, dask, what a kill costs, and many small images.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
import torch
from measure import Ratio, Results, in_turn, medians
from safetensors.torch import save_file
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Extent
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import plan_slide
from wsi_seg.inference.run import infer_with
from wsi_seg.ingest.run import tile_slides
from wsi_seg.models import ModelCard, NetworkSpec, build_network
from wsi_seg.predict.ensemble import Model
from wsi_seg.predict.predictor import Predictor
from wsi_seg.progress import Silent
from wsi_seg.store import SlideStore, open_collection, open_predictions
from wsi_seg.testing.stores import make_huge_store, make_store
from wsi_seg.testing.tissue import write_tissue_slide

PEERS_PYTHON = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
PEERS = ("monai", "tiatoolbox", "lazyslide", "toolbelt")
# Peers weigh tiles differently and compute in fp32 where we take bf16.
LARGEST_MEAN_DIFFERENCE = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON, help="their interpreter")
    parser.add_argument(
        "--only", action="append", choices=["rates", "memory", "workers", "resume", "small"]
    )
    parser.add_argument(
        "--side", type=int, default=16_384, help="of the slide for memory, in pixels"
    )
    parser.add_argument("--images", type=int, default=48, help="of one tile")
    parser.add_argument("--height", type=int, default=2048, help="of the painted slide")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    parts = {"rates": measure, "memory": memory, "workers": workers, "resume": resume,
             "small": small_images}  # fmt: skip
    results = Results()
    for name in options.only or parts:
        with tempfile.TemporaryDirectory() as folder:
            results |= parts[name](options, Path(folder))
    results.show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    slide = options.slide
    if slide is None:
        slide = folder / "painted.tif"
        write_tissue_slide(slide, height=options.height, width=2560, seed=1)
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    network = build_network(NetworkSpec("Unet", options.encoder, 3, 1))
    card = card_of(options)
    predictor = Predictor(network, card, precision=options.precision)
    tiles = random_tiles(predictor, options)
    predictor.predict(tiles)  # the first call chooses kernels
    save_file(network.state_dict(), folder / "network.safetensors")
    figures: dict[str, object] = {
        "encoder": options.encoder,
        "tile_px": options.tile,
        "batch": options.batch,
        "precision": predictor.precision,
    }
    count = tile_count(store, options)

    def ours(turn: int) -> float:
        return infer_once(network, card, store, folder / f"pred{turn}.zarr", options)

    def peer(engine: str, precision: str, turn: int) -> float:
        weights, out = folder / "network.safetensors", folder / "peer.npy"
        found = run_peer(engine, precision, slide, weights, out, options)
        require_same(out, folder / f"pred{turn}.zarr", store)
        figures[f"{engine} {precision}, peak MB"] = found["peak_mb"]
        return count / found["seconds"]

    works: dict[str, Callable[[int], float]] = {
        "end to end": ours,
        "bare forward": lambda _: forward_rate(predictor, tiles),
    }
    for engine, precision in peers(options, predictor.precision):
        works[f"{engine} {precision}"] = partial(peer, engine, precision)
    rates = in_turn(works, options.repeats)
    return Results(
        {
            f"end to end / {name}": Ratio.of(rates["end to end"], rates[name])
            for name in list(works)[1:]
        },
        figures | medians(rates, "tiles/s", 2),
    )


def card_of(options: argparse.Namespace) -> ModelCard:
    return ModelCard(
        architecture="Unet",
        encoder=options.encoder,
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=None,
        tile_px=options.tile,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def peers(options: argparse.Namespace, ours: str) -> list[tuple[str, str]]:
    """Engines and precisions to run: at their default, then in our precision."""
    if not options.peers.is_file():
        return []
    return [(engine, precision) for engine in PEERS for precision in dict.fromkeys(("fp32", ours))]


def run_peer(
    engine: str,
    precision: str,
    slide: Path,
    weights: Path,
    out: Path,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Seconds that one peer takes for the slide, and its peak memory."""
    script = Path(__file__).parent / "peers" / "infer.py"
    command = [options.peers, "-W", "ignore", script, engine, slide]
    command += [weights, out, "--precision", precision]
    command += ["--encoder", options.encoder]
    command += ["--tile", str(options.tile), "--batch", str(options.batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def tile_count(store: SlideStore, options: argparse.Namespace) -> int:
    """Tiles of a full grid at half overlap, the last of each row moved inwards."""
    stride = options.tile // 2
    extent = store.pyramid.extent
    rows, columns = (
        max(1, -(-(side - options.tile) // stride) + 1) for side in (extent.height, extent.width)
    )
    return rows * columns


def require_same(peer: Path, out: Path, store: SlideStore) -> None:
    """Stop where a peer's probabilities are not ours."""
    extent = store.pyramid.extent
    whole = extent.region()
    (prediction,) = open_predictions(out)
    ours = prediction.image.read(whole)[:, :, 0] / np.float32(255)
    difference = float(np.abs(np.load(peer)[: extent.height, : extent.width] - ours).mean())
    if difference > LARGEST_MEAN_DIFFERENCE:
        raise SystemExit(f"probabilities differ by {difference:.3f} on average: no equal work")


def infer_once(
    network: nn.Module, card: ModelCard, store: SlideStore, out: Path, options: argparse.Namespace
) -> float:
    """Tiles per second of one whole inference, reading, blending and writing included."""
    plan = InferOptions(overlap=0.5, batch=options.batch, precision=options.precision)
    report = infer_with(Model.of(network, card), [store], out, plan, progress=Silent())
    return report.tiles_per_second


def random_tiles(predictor: Predictor, options: argparse.Namespace) -> torch.Tensor:
    """One batch, where the model computes."""
    shape = (options.batch, options.tile, options.tile, 3)
    return torch.randint(256, shape, dtype=torch.uint8, device=predictor.device)


def forward_rate(predictor: Predictor, tiles: torch.Tensor) -> float:
    """Tiles per second of nothing but the model on tiles in memory."""
    started = time.perf_counter()
    rounds = 8
    for _ in range(rounds):
        found = predictor.predict(tiles)
    found[0, 0, 0, 0].item()  # waits for a GPU
    return rounds * len(tiles) / (time.perf_counter() - started)


def memory(options: argparse.Namespace, folder: Path) -> Results:
    """Peak memory with a network of one convolution: ours, the peers', ours on a taller slide."""
    side, ratios, figures = options.side, {}, {}
    weights = folder / "toy.safetensors"
    save_file(nn.Conv2d(3, 1, 3, padding=1).state_dict(), weights)
    slides = {}
    for name, height in (("square", side), ("tall", 4 * side)):
        slides[name] = folder / f"{name}.tif"
        write_plain_slide(slides[name], height, side)
        tile_slides([slides[name]], folder / f"{name}.zarr", progress=Silent())
    ours = run_peak(folder / "square.zarr", weights, 0.5)
    figures[f"{side} px a side, ours, peak MB"] = ours["peak_mb"]
    figures[f"{side} px a side, ours, planned MB"] = ours["planned_mb"]
    figures["of which libraries, MB"] = ours["libraries_mb"]
    toy = argparse.Namespace(**vars(options) | {"encoder": "toy", "batch": 8})
    for engine in PEERS if options.peers.is_file() else ():
        found = run_peer(engine, "fp32", slides["square"], weights, folder / "out.npy", toy)
        figures[f"{side} px a side, {engine}, peak MB"] = found["peak_mb"]
        ratios[f"peak, ours / {engine}"] = Ratio.once(ours["peak_mb"] / found["peak_mb"])
    low, high = (
        run_peak(folder / f"{name}.zarr", weights, 0.0)["peak_mb"] for name in ("square", "tall")
    )
    ratios["peak at four times the height / peak"] = Ratio.once(high / low)
    return Results(ratios, figures)


def write_plain_slide(path: Path, height: int, width: int) -> None:
    """Write a slide of JPEG tiles that are all alike."""
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    tile = tile.repeat(32, 0).repeat(32, 1)
    count = (height // 512) * (width // 512)
    tifffile.imwrite(
        path,
        (tile for _ in range(count)),
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        compression="jpeg",
        bigtiff=True,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )


def run_peak(store: Path, weights: Path, overlap: float) -> dict[str, int]:
    script = Path(__file__).parent / "inference" / "peak.py"
    command = [sys.executable, script, store, weights, "--overlap", str(overlap)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def workers(options: argparse.Namespace, folder: Path) -> Results:
    """Dask on one worker and on two; every process has one thread."""
    script = Path(__file__).parent / "inference" / "workers.py"
    command = [sys.executable, script, folder, "--encoder", options.encoder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, dict] = json.loads(done.stdout.splitlines()[-1])
    return Results(
        {f"dask, {name}": Ratio(**ratio) for name, ratio in found["ratios"].items()},
        {f"dask, {name}": value for name, value in found["figures"].items()},
    )


def resume(options: argparse.Namespace, folder: Path) -> Results:
    """Tiles predicted twice because of one kill, from the plan of a square slide."""
    side = 4 * options.side
    make_huge_store(folder / "store.zarr", "slide", Extent(height=side, width=side))
    (store,) = open_collection(folder / "store.zarr")
    chosen = InferOptions(overlap=0.5, skip_background=False)
    plan = plan_slide(store, card_of(options), chosen, strip_px=1024)
    total, every = int(plan.keep.sum()), range(len(plan.strips))
    costs = []
    for row in range(len(plan.ys)):  # killed when these rows of tiles are done
        done = frozenset(i for i in every if max(plan.rows_for(frozenset({i}))) <= row)
        left = frozenset(every) - done
        again = plan.tiles_in(left) if left else 0
        costs.append((int(plan.keep[: row + 1].sum()) + again) / total - 1)
    return Results(
        {
            f"a kill, extra forwards, {side} px a side, mean": Ratio.once(statistics.mean(costs)),
            "a kill, extra forwards, worst": Ratio.once(max(costs)),
        }
    )


def small_images(options: argparse.Namespace, folder: Path) -> Results:
    """Tiles per second of many images of one tile, against the bare forward loop."""
    count = options.images
    for number in range(count):
        make_store(folder / "store.zarr", f"image{number}", options.tile, options.tile)
    card = card_of(options)
    network = build_network(card.spec)
    predictor = Predictor(network, card)
    tiles = random_tiles(predictor, options)
    predictor.predict(tiles)
    stores = list(open_collection(folder / "store.zarr"))
    chosen = InferOptions(batch=options.batch)

    def images(turn: int) -> float:
        out = folder / f"pred{turn}.zarr"
        report = infer_with((network, card), stores, out, chosen, progress=Silent())
        return report.tiles_per_second

    works = {"images": images, "bare forward": lambda _: forward_rate(predictor, tiles)}
    found = in_turn(works, options.repeats)
    return Results(
        {"images of one tile / bare forward": Ratio.of(*found.values())},
        {f"{count} images of {options.tile} px, tiles/s": statistics.median(found["images"])},
    )


if __name__ == "__main__":
    main()
