"""Outlining a huge label map in strips, against rasterio on independent strips.

A synthetic map of discs and rings is generated in strips and never held in memory; the floor
neither joins strips nor makes polygons. ``python benchmarks/bench_polygons.py [--json]``; the full
size is ``--side 30000 --repeats 1``, with 50,000 objects.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Ratio, Results, in_turn, medians, seconds
from rasterio.features import shapes

from wsi_seg.masks.vectorize import vectorize

SPACING_PX = 134


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=6_000)
    parser.add_argument("--strip", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measure(options).show(as_json=options.json)


def measure(options: argparse.Namespace) -> Results:
    counts = {"objects": 0, "holes": 0}

    def making(_: int) -> float:
        return seconds(lambda: sum(rows.size for _, rows in strips(options.side, options.strip)))

    def ours(_: int) -> float:
        started = time.perf_counter()
        found = vectorize(strips(options.side, options.strip))
        holes = [len(outline.interiors) for _, outline in found]
        counts.update(objects=len(holes), holes=sum(holes))
        return time.perf_counter() - started

    def floor(_: int) -> float:
        started = time.perf_counter()
        for _, rows in strips(options.side, options.strip):
            deque(shapes(rows, mask=rows > 0, connectivity=4), maxlen=0)
        return time.perf_counter() - started

    works = {"making": making, "outlining": ours, "rasterio, strips apart": floor}
    made, *found = in_turn(works, options.repeats).values()
    outlined, apart = ([a - m for a, m in zip(all_, made, strict=True)] for all_ in found)
    return Results(
        {"outlining / rasterio, strips apart": Ratio.of(outlined, apart)},
        {
            "Mpx": round(options.side**2 / 1e6),
            **counts,
            **medians({"outlining, the map's making taken off": outlined}, "s", 2),
            "peak memory of the process, MB": peak_mb(),
        },
    )


def strips(side: int, height: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield strips of discs with wavy borders on a grid; every fifth has a hole."""
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
