"""Verbatim tiling against a plain file copy, and against decoding and zstd through zarr-python.

The three alternate in one process; ratios of medians count. The copy is synced to disk like a store
(fsync). Run it alone: ``python benchmarks/bench_tile.py [SLIDE] [--json]``; without a slide it
makes a synthetic one. zarr-python is timed on the first rows of level 0 and scaled to the level.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import zarr
from measure import Ratio, Results, in_turn, medians, seconds

from wsi_seg.geometry import Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.slides import open_slide
from wsi_seg.testing.tissue import write_tissue_slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    slide = options.slide
    if slide is None:
        slide = folder / "painted.tif"
        write_tissue_slide(slide, height=9216, width=12288, seed=1)
    size = 0

    def tile(turn: int) -> float:
        nonlocal size
        out = folder / f"store{turn}.zarr"
        taken = seconds(lambda: tile_slides([slide], out, progress=Silent()))
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        shutil.rmtree(out)
        return taken

    works = {
        "plain copy with fsync": lambda _: seconds(lambda: copied(slide, folder / "copy")),
        "tile verbatim": tile,
        "decode + zstd through zarr-python (scaled)": lambda turn: recoded(slide, folder, turn),
    }
    found = in_turn(works, options.repeats, warm=1)  # the first turn warms the disk cache
    copies, tiled, recodes = found.values()
    return Results(
        {
            "store / file, bytes": Ratio.once(size / slide.stat().st_size),
            "tile / copy": Ratio.of(tiled, copies),
            "zarr-python / tile": Ratio.of(recodes, tiled),
        },
        {"slide": slide.name, "file, MB": round(slide.stat().st_size / 1e6, 1)}
        | medians(found, "s", 3),
    )


def copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def recoded(path: Path, folder: Path, turn: int, rows: int = 1024) -> float:
    """Extrapolate the seconds of zarr-python for level 0 from the first rows."""
    with open_slide(path) as slide:
        extent = slide.pyramid.extent
        height = min(rows, extent.height)
        array = zarr.create_array(
            str(folder / f"recoded{turn}.zarr"),
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
