"""Verbatim tiling against a plain file copy, and against decoding and zstd through zarr-python.

Measured in turn in one process; ratios of medians count. The copy is made as safe as a store is
(fsync). Run it alone: ``python benchmarks/bench_tile.py [SLIDE] [--json]``; without a slide it
paints one. zarr-python is timed on the first rows of level 0 and scaled to the whole level.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zarr

from wsi_seg.geometry import Region
from wsi_seg.progress import Silent
from wsi_seg.slides import open_slide
from wsi_seg.store.tile import tile_slides
from wsi_seg.testing.tissue import write_tissue_slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    lines = [f"{name}: {value}" for name, value in figures.items()]
    print(json.dumps(figures) if options.json else "\n".join(lines))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    slide = options.slide
    if slide is None:
        slide = folder / "painted.tif"
        write_tissue_slide(slide, height=9216, width=12288, seed=1)
    copies, stores = [], []
    size = 0
    for turn in range(options.repeats + 1):
        copy = seconds(lambda: copied(slide, folder / "copy"))
        out = folder / f"store{turn}.zarr"
        tiled = seconds(lambda out=out: tile_slides([slide], out, progress=Silent()))
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        shutil.rmtree(out)
        if turn:  # the first turn warms the disk's cache
            copies.append(copy)
            stores.append(tiled)
    tiled = statistics.median(stores)
    recode = recoded_seconds(slide, folder)
    return {
        "slide": slide.name,
        "file, MB": round(slide.stat().st_size / 1e6, 1),
        "store / file, bytes": round(size / slide.stat().st_size, 4),
        "plain copy with fsync, s": round(statistics.median(copies), 3),
        "tile verbatim, s": round(tiled, 3),
        "tile / copy": round(tiled / statistics.median(copies), 2),
        "decode + zstd through zarr-python, s (scaled)": round(recode, 1),
        "zarr-python / tile": round(recode / tiled, 1),
    }


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def recoded_seconds(path: Path, folder: Path, rows: int = 2048) -> float:
    """Time that zarr-python takes for level 0, from the first rows."""
    with open_slide(path) as slide:
        extent = slide.pyramid.extent
        height = min(rows, extent.height)
        array = zarr.create_array(
            str(folder / "recoded.zarr"),
            shape=(height, extent.width, 3),
            dtype="uint8",
            chunks=(512, 512, 3),
            compressors=[zarr.codecs.ZstdCodec(level=1)],
        )
        started = time.perf_counter()
        for y in range(0, height, 512):
            part = Region(level=0, y=y, x=0, height=min(512, height - y), width=extent.width)
            array[y : y + part.height] = slide.read(part)
        return (time.perf_counter() - started) * extent.height / height


if __name__ == "__main__":
    main()
