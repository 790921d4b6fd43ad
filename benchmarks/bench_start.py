"""Startup time: ``wsi-seg --help``, ``infer`` until its first tile, opening many slides.

``python benchmarks/bench_start.py [--slides 10000] [--json]``. The floors are Python itself and
``import torch``. Ratios are of CPU time, which depends less on other load than wall time; seconds
are wall time. ``python -X importtime -m wsi_seg infer ...`` shows which module imports which.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Ratio, Results

from wsi_seg.geometry import Extent, extend_pyramid
from wsi_seg.store import (
    Layout,
    StoreInfo,
    create_collection,
    create_multiscale,
    open_collection,
)
from wsi_seg.testing.stores import make_store

# Exits after the first batch of tiles, when progress advances.
FIRST_TILE = """
import os, sys
from pathlib import Path
from wsi_seg.progress import Silent

class First(Silent):
    def advance(self, amount):
        if amount:
            os._exit(0)

from wsi_seg.predict.ensemble import newest_model
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.store import open_collection
folder = Path(sys.argv[1])
infer(
    open_collection(folder / "store.zarr"), newest_model(folder), folder / "pred.zarr",
    InferOptions(batch=1, allow_mpp_mismatch=True), overwrite=True, progress=First(),
)
sys.exit("no tile was predicted")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--slides", type=int, default=1_000, help="number of slides of the opened collections"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder)) | opening(options.slides, Path(folder))
    results.show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    make_store(folder / "store.zarr", "slide", 512, 512)
    commands = {
        "python": ["-c", "pass"],
        "wsi-seg --help": ["-m", "wsi_seg", "--help"],
        "import torch": ["-c", "import torch"],
        "infer to its first tile": ["-c", FIRST_TILE, str(folder)],
    }
    wall: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(options.repeats + 1):
        for name, words in commands.items():
            seconds, busy = run(words)
            if turn:  # the first turn reads files from disk, and compiles them
                wall[name].append(seconds)
                cpu[name].append(busy)
    return Results(
        {
            "CPU, --help / python": Ratio.of(cpu["wsi-seg --help"], cpu["python"]),
            "CPU, infer to its first tile / import torch": Ratio.of(
                cpu["infer to its first tile"], cpu["import torch"]
            ),
            "wsi-seg --help, s of CPU": Ratio.of(cpu["wsi-seg --help"], [1.0] * options.repeats),
            "infer to its first tile, s of CPU": Ratio.of(
                cpu["infer to its first tile"], [1.0] * options.repeats
            ),
        },
        {f"{name}, s": round(statistics.median(found), 3) for name, found in wall.items()},
    )


def opening(slides: int, folder: Path) -> Results:
    """Measure the CPU time of opening all slides of a collection, with one and eight levels."""
    spent: dict[str, float] = {}
    for side in (1_000, 100_000):
        collection = folder / f"{side}.zarr"
        levels = make_slides(collection, side, slides)
        started = time.process_time()
        opened = list(open_collection(collection))
        cpu = time.process_time() - started
        assert {len(slide.pyramid.extents) for slide in opened} == {levels}
        spent[f"opening {slides} slides of {levels} levels, s of CPU"] = round(cpu, 3)
    return Results(figures=dict(spent))


def make_slides(collection: Path, side: int, slides: int) -> int:
    """Make equal slides without pixels, and return their number of levels."""
    create_collection(collection)
    extents = extend_pyramid([Extent(height=side, width=side)])
    layout = Layout.of(extents, channels=3, mpp=0.25)
    create_multiscale(collection / "slide0", layout, StoreInfo().to_json())
    for number in range(1, slides):
        shutil.copytree(collection / "slide0", collection / f"slide{number}")
    return len(extents)


def run(words: list[str]) -> tuple[float, float]:
    """Return wall seconds and CPU seconds of a child process."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{words[:2]} failed")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
