"""Scoring and exporting a large slide: CPU seconds and peak memory, against those of inference.

Goals: each below 1 GB, polygons in less than a tenth of the time of inference on two cores
(networks use both cores, the other steps one). Without a slide, a synthetic prediction of 26,880 x
30,144 px has nuclei in half of it, many of which touch; the time of inference is then extrapolated
from a few tiles of the bundled model. With a slide, the bundled model predicts it. The truth is the
prediction, shifted by two pixels. Every step runs in its own process; CPU seconds depend little on
other load. Run it alone: ``python benchmarks/bench_decide.py [SLIDE] [--json]``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Ratio, Results

MAKE = Path(__file__).parent / "decide" / "make.py"
MODEL = Path(__file__).parents[1] / "wsi_seg" / "models" / "shipped" / "nuclei_he.safetensors"
CORES = 2

EXPORTS = {
    "polygons": ("--geojson", "polygons"),
    "polygons, split": ("--geojson", "split", "--threshold", "0.5", "--watershed-depth", "0.5"),
    "tables": ("--table", "tables"),
    "run lengths": ("--rle", "masks.csv"),
    "PNG": ("--png", "png"),
    "OME-TIFF": ("--ome-tiff", "tiff"),
    "COCO": ("--coco", "coco.json"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--height", type=int, default=26_880)
    parser.add_argument("--width", type=int, default=30_144)
    parser.add_argument("--overlap", default="0.5")
    parser.add_argument("--folder", type=Path, help="working folder; default: a temporary one")
    parser.add_argument("--only", action="append", choices=["evaluate", *EXPORTS])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        inference_s = prepared(Path(name), options)
        found = measured(Path(name), inference_s, options.only)
    found.show(as_json=options.json)


def prepared(folder: Path, options: argparse.Namespace) -> float:
    """Write a prediction and its truth, and return the seconds of inference."""
    make = (str(MAKE), "truth" if options.slide else "made", str(folder))
    if options.slide is None:
        size = ("--height", str(options.height), "--width", str(options.width))
        done = subprocess.run([sys.executable, *make, *size], check=True, capture_output=True)
        return json.loads(done.stdout)["cpu_s"] / CORES
    timed(folder, "tile", str(options.slide.resolve()), "--out", "store.zarr")
    words = ("--checkpoint", str(MODEL), "--allow-mpp-mismatch", "--overlap", options.overlap)
    seconds, _ = timed(folder, "infer", "store.zarr", *words)
    subprocess.run([sys.executable, *make], check=True, stdout=subprocess.DEVNULL)
    return seconds / CORES


def measured(folder: Path, inference_s: float, only: list[str] | None) -> Results:
    """Measure CPU seconds and peak memory in MB of each step."""
    verbs = {"evaluate": ("evaluate", "pred.zarr", "--truth", "store.zarr")}
    verbs |= {name: ("export", "pred.zarr", *words) for name, words in EXPORTS.items()}
    steps = {name: timed(folder, *verbs[name]) for name in only or verbs}
    ratios = {
        f"{name} / inference on {CORES} cores": Ratio.once(seconds / inference_s)
        for name, (seconds, _) in steps.items()
    }
    largest = max(memory for _, memory in steps.values())
    figures: dict[str, object] = {f"inference on {CORES} cores, s": round(inference_s)}
    for name, (seconds, memory) in steps.items():
        figures |= {f"{name}, CPU s": round(seconds, 1), f"{name}, peak MB": round(memory)}
    return Results(ratios | {"largest peak of a step, GB": Ratio.once(largest / 1000)}, figures)


def timed(folder: Path, *words: str) -> tuple[float, float]:
    """Return CPU seconds and peak memory in MB of one command.

    A forked child starts with the peak memory of this process, so this module has no large imports.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "wsi_seg", *words], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
