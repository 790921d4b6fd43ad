"""Random windows from a verbatim store: wsi_seg, bare decoding, zarr-python, OpenSlide, tifffile.

All readers take turns to read the same windows with two threads; every turn has new windows, and
the pixels of one window are compared. wsi_seg has a warm cache, full of chunks of earlier turns
(the first turn, which fills it, does not count; it holds at most a ninth of the slide). Ratios of
medians count. Run it alone: ``python benchmarks/bench_read.py [SLIDE] [--json]``; without a slide
it makes a synthetic one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import tifffile
import zarr
from measure import Ratio, Results, in_turn, medians

from wsi_seg.geometry import Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import Multiscale, open_collection
from wsi_seg.store.cache import DEFAULT_BYTES, ChunkCache, shared_cache
from wsi_seg.store.chunks import read_encoded
from wsi_seg.testing.tissue import write_tissue_slide

LARGEST_MEAN_DIFFERENCE = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--windows", type=int, default=150)
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
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    image = store.image
    # The cache holds only a part of the slide, whatever its size.
    shared_cache().resize(min(DEFAULT_BYTES, 3 * image.pyramid.extent.area // 9))
    plain = zarr.open(str(image.path / "0"), mode="r")
    handle = openslide.OpenSlide(slide)
    pages = zarr.open(tifffile.imread(slide, aszarr=True, level=0), mode="r")
    extent = image.pyramid.extent
    readers: dict[str, Callable[[Region], object]] = {
        "ours": image.read,
        "bare decoding": lambda region: bare(image, region),
        "zarr-python": lambda region: plain[(slice(None), *region.slices)],
        "tifffile": lambda region: pages[region.slices],
        "openslide": lambda r: np.asarray(handle.read_region((r.x, r.y), 0, (r.width, r.height))),
    }

    require_equal(readers, Region(level=0, y=300, x=400, height=512, width=512))

    def windows(turn: int) -> list[Region]:
        draws = np.random.default_rng(turn)
        return [
            Region(level=0, y=int(y), x=int(x), height=512, width=512)
            for y, x in zip(
                draws.integers(0, extent.height - 512, options.windows),
                draws.integers(0, extent.width - 512, options.windows),
                strict=True,
            )
        ]

    works = {
        name: lambda turn, read=read: rate(read, windows(turn)) for name, read in readers.items()
    }
    found = in_turn(works, options.repeats, warm=1)
    ours = found["ours"]
    return Results(
        {
            f"ours / {name}": Ratio.of(ours, rates)
            for name, rates in found.items()
            if name != "ours"
        },
        medians(found, "windows/s"),
    )


def require_equal(readers: dict[str, Callable[[Region], object]], window: Region) -> None:
    """Exit if the pixels of a reader differ by more than the rounding of decoders."""
    ours = np.asarray(readers["ours"](window)).astype(int)
    for name, read in readers.items():
        pixels = read(window)
        if pixels is None:
            continue  # bare decoding does not assemble windows
        found = np.asarray(pixels)
        found = found.transpose(1, 2, 0) if len(found) == 3 else found
        difference = float(np.abs(found[..., :3] - ours).mean())
        if difference > LARGEST_MEAN_DIFFERENCE:
            raise SystemExit(f"{name} differs by {difference:.2f} on average: no equal work")


def rate(read: Callable[[Region], object], windows: list[Region]) -> float:
    with ThreadPoolExecutor(2) as pool:
        started = time.perf_counter()
        list(pool.map(read, windows))
        return len(windows) / (time.perf_counter() - started)


def bare(image: Multiscale, region: Region) -> None:
    """Only decode the chunks of a window."""
    array = image.arrays[0]
    cache = ChunkCache(2**20)
    for row in range(region.y // array.chunk.height, -(-region.y_end // array.chunk.height)):
        for column in range(region.x // array.chunk.width, -(-region.x_end // array.chunk.width)):
            data = read_encoded(array, row, column, cache)
            if data is not None:
                array.encoding.decode(data, array.chunk_shape)


if __name__ == "__main__":
    main()
