"""Start-up: ``wsi-seg --help``, and ``infer`` from its start to its first tile.

``python benchmarks/bench_start.py [--json]``. The floors are Python itself and ``import torch``.
Compared is CPU time, which other programs disturb less than the clock; seconds are of the clock.
``python -X importtime -m wsi_seg infer ...`` says what loads what.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Ratio, Results

from wsi_seg.testing.stores import make_store

# Ends where the first batch of tiles is predicted: the bar moves then.
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
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


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
            if turn:  # the first turn reads files from the disk, and compiles them
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


def run(words: list[str]) -> tuple[float, float]:
    """Seconds of a child by the clock, and of the CPU."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{words[:2]} failed")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
