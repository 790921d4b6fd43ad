"""Outlining a huge label map, strip by strip: seconds, objects and peak memory.

A made map of 30,000 x 30,000 px with 50,000 discs, some of them rings, arrives in strips of 1,024
rows and is never held whole. Run it alone: ``python benchmarks/bench_polygons.py [--json]``.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsi_seg.masks.vectorize import vectorize

SPACING_PX = 134


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=30_000)
    parser.add_argument("--strip", type=int, default=1024)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    made = sum(int(rows.size) for _, rows in strips(options.side, options.strip))
    making = time.perf_counter() - started
    started = time.perf_counter()
    count = holes = 0
    for _, outline in vectorize(strips(options.side, options.strip)):
        count += 1
        holes += len(outline.interiors)
    seconds = time.perf_counter() - started - making
    figures = {
        "Mpx": round(made / 1e6),
        "objects": count,
        "holes": holes,
        "outlining, s (making the map taken off)": round(seconds, 1),
        "Mpx/s": round(made / 1e6 / seconds, 1),
        "peak memory of the process, MB": peak_mb(),
    }
    lines = [f"{name}: {value}" for name, value in figures.items()]
    print(json.dumps(figures) if options.json else "\n".join(lines))


def strips(side: int, height: int) -> Iterator[tuple[int, np.ndarray]]:
    """Discs on a grid with wavy borders; every fifth has a hole."""
    x = np.arange(side)
    for y in range(0, side, height):
        rows = np.arange(y, min(y + height, side))
        dy = rows % SPACING_PX - SPACING_PX // 2
        dx = x % SPACING_PX - SPACING_PX // 2
        radius = np.hypot(dy[:, None], dx[None, :]).astype(np.float32)
        wave = (3 * np.sin(np.arctan2(dy, 20) * 9)).astype(np.float32)[:, None]
        number = (rows // SPACING_PX)[:, None] * 7 + (x // SPACING_PX)[None, :]
        disc = radius < 45 + wave
        disc &= ~((number % 5 == 0) & (radius < 15))
        yield y, disc.astype(np.uint8) * (1 + (number % 2).astype(np.uint8))


def peak_mb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


if __name__ == "__main__":
    main()
