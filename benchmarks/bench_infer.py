"""End-to-end inference against the bare forward loop of the same model, and against the peers.

All are measured in turn, several times; the ratios of medians are what counts. Peers run in their
own environment (``make bench-env``; left out where it is absent), at their defaults (fp32) and in
our precision, on the same slide with the same weights; that they give the same probabilities is
checked. Run it alone: ``python benchmarks/bench_infer.py [SLIDE] [--json]``. Without a slide it
paints one.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.infer.members import Model
from wsi_seg.infer.plan import InferOptions
from wsi_seg.infer.predictor import Predictor
from wsi_seg.infer.run import infer_with
from wsi_seg.models import ModelCard, NetworkSpec, build_network
from wsi_seg.progress import Silent
from wsi_seg.store import SlideStore, open_collection
from wsi_seg.store.tile import tile_slides
from wsi_seg.testing.tissue import write_tissue_slide

PEERS_PYTHON = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
PEERS = ("monai", "tiatoolbox")
# Peers weigh windows differently and compute in fp32 where we take bf16.
LARGEST_MEAN_DIFFERENCE = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON, help="their interpreter")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    print(
        json.dumps(figures) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items())
    )


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    slide = options.slide
    if slide is None:
        slide = folder / "painted.tif"
        write_tissue_slide(slide, height=2048, width=2560, seed=1)
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    network = build_network(NetworkSpec("Unet", options.encoder, 3, 1))
    card = ModelCard(
        architecture="Unet",
        encoder=options.encoder,
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=None,
        tile_px=options.tile,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    predictor = Predictor(network, card)
    tiles = np.random.default_rng(0).integers(
        0, 256, (options.batch, options.tile, options.tile, 3), dtype=np.uint8
    )
    predictor.predict(tiles)  # the first call chooses kernels
    save_file(network.state_dict(), folder / "network.safetensors")
    rates: dict[str, list[float]] = {}
    figures: dict[str, object] = {}
    for turn in range(options.repeats):
        out = folder / f"pred{turn}.zarr"
        rates.setdefault("end to end", []).append(infer_once(network, card, store, out, options))
        rates.setdefault("bare forward", []).append(forward_rate(predictor, tiles))
        windows = window_count(store, options)
        for engine, precision in peers(options, predictor.precision):
            found = run_peer(engine, precision, slide, folder, options)
            figures[f"{engine} {precision}, peak MB"] = found["peak_mb"]
            require_same(folder / "peer.npy", out, store)
            rates.setdefault(f"{engine} {precision}", []).append(windows / found["seconds"])
    median = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "encoder": options.encoder,
        "tile_px": options.tile,
        "batch": options.batch,
        "precision": predictor.precision,
        **{f"{name}, tiles/s": round(found, 2) for name, found in median.items()},
        **{
            f"end to end / {name}": round(median["end to end"] / median[name], 3)
            for name in list(median)[1:]
        },
        **figures,
    }


def peers(options: argparse.Namespace, ours: str) -> list[tuple[str, str]]:
    """Engines and precisions to run: at their default, then in our precision."""
    if not options.peers.is_file():
        return []
    return [(engine, precision) for engine in PEERS for precision in dict.fromkeys(("fp32", ours))]


def run_peer(
    engine: str, precision: str, slide: Path, folder: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds that one peer takes for the slide, and its peak memory."""
    script = Path(__file__).parent / "peers" / "infer.py"
    command = [options.peers, "-W", "ignore", script, engine, slide]
    command += [folder / "network.safetensors", folder / "peer.npy", "--precision", precision]
    command += ["--encoder", options.encoder]
    command += ["--tile", str(options.tile), "--batch", str(options.batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def window_count(store: SlideStore, options: argparse.Namespace) -> int:
    """Windows of a full grid at half overlap, the last of each row moved inwards."""
    stride = options.tile // 2
    extent = store.pyramid.extent
    rows, columns = (
        max(1, -(-(side - options.tile) // stride) + 1) for side in (extent.height, extent.width)
    )
    return rows * columns


def require_same(peer: Path, out: Path, store: SlideStore) -> None:
    """Stop where a peer's probabilities are not ours."""
    extent = store.pyramid.extent
    whole = Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    (prediction,) = open_collection(out)
    ours = prediction.image.read(whole)[:, :, 0] / np.float32(255)
    difference = float(np.abs(np.load(peer)[: extent.height, : extent.width] - ours).mean())
    if difference > LARGEST_MEAN_DIFFERENCE:
        raise SystemExit(f"probabilities differ by {difference:.3f} on average: no equal work")


def infer_once(
    network: nn.Module, card: ModelCard, store: SlideStore, out: Path, options: argparse.Namespace
) -> float:
    """Tiles per second of one whole inference, reading, blending and writing included."""
    plan = InferOptions(overlap=0.5, batch=options.batch)
    report = infer_with(Model.of(network, card), [store], out, plan, progress=Silent())
    return report.tiles_per_second


def forward_rate(predictor: Predictor, tiles: np.ndarray) -> float:
    """Tiles per second of nothing but the model on tiles in memory."""
    started = time.perf_counter()
    rounds = 8
    for _ in range(rounds):
        predictor.predict(tiles)
    return rounds * len(tiles) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
