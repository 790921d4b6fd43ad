"""Samples per second and memory of the importance sampler; patches per second against peers.

Samples: a slide of 100,000 x 100,000 px with 5,000 objects with the defaults of a recipe, one core.
Patches: 512 px at random positions of a real slide, preset ``light``, two loader workers,
alternating with the same loop around the peers' readers (``make bench-env``; skipped if missing).
wsi_seg also reads and augments the label. Run it alone: ``python benchmarks/bench_sampling.py
[SLIDE] [--json]``; without a slide it makes a synthetic one.
"""

import argparse
import json
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from measure import Ratio, Results, in_turn, medians
from torch.utils.data import DataLoader

from wsi_seg.classes import ClassTable
from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.data.dataset import PatchDataset
from wsi_seg.data.source import PatchSource
from wsi_seg.geometry import Extent
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.reading.view import View
from wsi_seg.sampling import Draws, PatchSampler, SlideMap
from wsi_seg.store import SlideStore, open_collection
from wsi_seg.testing.tissue import write_tissue_slide

PEERS_PYTHON = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
PEERS = ("tiatoolbox", "monai")
PATCH_PX = 512
SIDE_PX, CELL_PX, OBJECTS, DRAWS = 100_000, 64.0, 5_000, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patches", type=int, default=400)
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON, help="their interpreter")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = draw_figures(options) | feed_figures(options, Path(folder))
    results.show(as_json=options.json)


def draw_figures(options: argparse.Namespace) -> Results:
    """Measure samples of a huge slide, against the same number of numpy random numbers."""
    mix = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    sampling = SamplingConfig(mix=mix, patches_per_epoch=DRAWS)
    tracemalloc.start()
    sampler = PatchSampler([huge_slide()], sampling, sides=np.full((1, 2), 512.0), seed=0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    def drawn(turn: int) -> float:
        started = time.process_time()
        sampler.epoch(turn)
        return DRAWS / (time.process_time() - started)

    def random(turn: int) -> float:
        started = time.process_time()
        np.random.default_rng(turn).random((DRAWS, 4))
        return DRAWS / (time.process_time() - started)

    found = in_turn({"importance draws": drawn, "four random numbers": random}, options.repeats)
    return Results(
        {"draws / four random numbers": Ratio.of(*found.values())},
        {
            "cells": sampler.maps[0].tissue.size,
            **medians(found, "per s of one core", 0),
            "sampler, memory, MB": round(kept / 1e6, 1),
        },
    )


def feed_figures(options: argparse.Namespace, folder: Path) -> Results:
    """Measure patches of a slide, of wsi_seg and of peers."""
    slide = options.slide
    if slide is None:
        slide = folder / "painted.tif"
        write_tissue_slide(slide, height=9216, width=12288, seed=1)
    tile_slides([slide], folder / "s.zarr", progress=Silent())
    (store,) = open_collection(folder / "s.zarr")
    extent = store.pyramid.extent

    def places(turn: int) -> tuple[np.ndarray, np.ndarray]:
        draws = np.random.default_rng(turn)
        y = draws.integers(0, extent.height - PATCH_PX, options.patches)
        return y, draws.integers(0, extent.width - PATCH_PX, options.patches)

    def peer_rate(peer: str, turn: int) -> float:
        np.save(folder / "places.npy", np.stack(places(turn), 1))
        script = Path(__file__).parent / "peers" / "feed.py"
        command = [options.peers, "-W", "ignore", script, peer, slide, folder / "places.npy"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(json.loads(done.stdout.splitlines()[-1])["patches_per_second"])

    works: dict[str, Callable[[int], float]] = {"ours": lambda turn: our_rate(store, *places(turn))}
    for peer in PEERS if options.peers.is_file() else ():
        works[peer] = partial(peer_rate, peer)
    found = in_turn(works, options.repeats)
    return Results(
        {f"ours / {peer}": Ratio.of(found["ours"], found[peer]) for peer in list(works)[1:]},
        medians(found, "patches/s"),
    )


def our_rate(store: SlideStore, y: np.ndarray, x: np.ndarray) -> float:
    source = PatchSource.of(store, "tissue", classes=ClassTable.named(["tissue"]), view=View(None))
    places = Places(y + PATCH_PX / 2, x + PATCH_PX / 2)
    patches = PatchDataset([source], places, augment="light", patch_px=PATCH_PX, seed=0)
    loader = DataLoader(patches, batch_size=8, num_workers=2, sampler=range(len(places)))
    batches = iter(loader)
    next(batches)  # workers have started
    started, count = time.perf_counter(), 0
    for images, _ in batches:
        count += len(images)
    return count / (time.perf_counter() - started)


class Places:
    """Sampler of given positions, so that all readers do the same work."""

    def __init__(self, y: np.ndarray, x: np.ndarray) -> None:
        self.y, self.x = y, x

    def __len__(self) -> int:
        return len(self.y)

    def epoch(self, epoch: int) -> Draws:
        """Return all positions in order, for any epoch."""
        zeros = np.zeros(len(self.y))
        return Draws(
            slide=zeros.astype(np.int32),
            y=self.y,
            x=self.x,
            layer=zeros.astype(np.uint8),
            object_id=zeros.astype(np.int64) - 1,
            weight=zeros.astype(np.float32) + 1,
        )


def huge_slide() -> SlideMap:
    cells = int(np.ceil(SIDE_PX / CELL_PX))
    tissue = np.zeros((cells, cells), np.uint8)
    tissue[200:900, 300:1300] = 255
    corners = np.random.default_rng(0).uniform(0, SIDE_PX - 400, (OBJECTS, 2))
    return SlideMap(
        name="huge",
        extent=Extent(height=SIDE_PX, width=SIDE_PX),
        px_area=0.25,
        cell_px=CELL_PX,
        tissue=tissue,
        boxes=np.concatenate([corners, corners + 300], axis=1),
        class_ids=np.ones(OBJECTS, np.uint8),
        areas=np.full(OBJECTS, 300.0**2),
        sources=np.full(OBJECTS, "expert"),
    )


if __name__ == "__main__":
    main()
