"""Draws per second and memory of the importance sampler on a huge slide.

A slide of 100,000 x 100,000 px with 5,000 objects at the defaults of a recipe, one core. Run it
alone: ``python benchmarks/bench_sampling.py [--json]``.
"""

import argparse
import json
import statistics
import time
import tracemalloc

import numpy as np

from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.geometry import Extent
from wsi_seg.sampling import PatchSampler, SlideMap

SIDE_PX, CELL_PX, OBJECTS, DRAWS = 100_000, 64.0, 5_000, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mix = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    sampling = SamplingConfig(mix=mix, patches_per_epoch=DRAWS)
    tracemalloc.start()
    sampler = PatchSampler([huge_slide()], sampling, seed=0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rates = []
    for epoch in range(options.repeats):
        started = time.process_time()
        sampler.epoch(epoch)
        rates.append(DRAWS / (time.process_time() - started))
    figures = {
        "cells": sampler.maps[0].tissue.size,
        "draws/s of one core": round(statistics.median(rates)),
        "memory, MB": round(kept / 1e6, 1),
    }
    lines = [f"{name}: {value}" for name, value in figures.items()]
    print(json.dumps(figures) if options.json else "\n".join(lines))


def huge_slide() -> SlideMap:
    cells = int(np.ceil(SIDE_PX / CELL_PX))
    tissue = np.zeros((cells, cells), np.uint8)
    tissue[200:900, 300:1300] = 255
    corners = np.random.default_rng(0).uniform(0, SIDE_PX - 400, (OBJECTS, 2))
    return SlideMap(
        name="huge",
        extent=Extent(SIDE_PX, SIDE_PX),
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
