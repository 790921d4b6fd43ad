"""End-to-end inference against the bare forward loop of the same model, batch and precision.

Both are measured in turn, several times, in one process; the ratio of medians is what counts.
Run it alone: ``python benchmarks/bench_infer.py [SLIDE] [--json]``. Without a slide it paints one.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from wsi_seg.classes import ClassTable
from wsi_seg.infer.plan import InferOptions
from wsi_seg.infer.predictor import Predictor
from wsi_seg.infer.run import infer_with
from wsi_seg.models import ModelCard, NetworkSpec, build_network
from wsi_seg.progress import Silent
from wsi_seg.store import SlideStore, open_collection
from wsi_seg.store.tile import tile_slides
from wsi_seg.testing.tissue import write_tissue_slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
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
        write_tissue_slide(slide, height=3072, width=4096, seed=1)
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
    bare, ours = [], []
    for turn in range(options.repeats):
        rate = infer_once(network, card, store, folder / f"pred{turn}.zarr", options)
        ours.append(rate)
        bare.append(forward_rate(predictor, tiles))
    ratio = statistics.median(ours) / statistics.median(bare)
    return {
        "encoder": options.encoder,
        "tile_px": options.tile,
        "batch": options.batch,
        "precision": predictor.precision,
        "bare forward, tiles/s": round(statistics.median(bare), 2),
        "end to end, tiles/s": round(statistics.median(ours), 2),
        "ratio": round(ratio, 3),
    }


def infer_once(
    network: object, card: ModelCard, store: SlideStore, out: Path, options: argparse.Namespace
) -> float:
    """Tiles per second of one whole inference, reading, blending and writing included."""
    plan = InferOptions(overlap=0.5, batch=options.batch)
    report = infer_with((network, card), [store], out, plan, progress=Silent())
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
