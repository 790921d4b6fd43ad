"""Time and memory of each command on a collection of many slides.

``python benchmarks/bench_load.py [--images 10000] [--json]``: seconds and peak memory of tile,
annotate, one epoch of train, infer and evaluate on small images, and seconds per image relative to
a tenth of the images (1 means no growth). ``bench_start.py`` measures opening many slides.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Ratio, Results
from PIL import Image

RECIPE = """
classes: [{name: disc}]
data: {stores: [store.zarr], label: annotations, validation: 0.1}
mpp: null
patch_px: 64
model: {encoder: tu-mobilenetv3_small_050, weights: null}
train: {epochs: 1, batch_size: 32, workers: 0}
sampling: {patches_per_epoch: 2048}
"""


def write_images(folder: Path, count: int) -> None:
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:96, :64]
    for name in ("images", "outlines"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        cy, cx = draws.uniform(20, 44, 2)
        pixels = draws.normal(200, 12, (96, 64, 3))
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < 150] -= 90
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / "images" / f"i{number:05d}.png")
        angles = np.linspace(0, 2 * np.pi, 16)
        ring = np.stack([cx + 12 * np.cos(angles), cy + 12 * np.sin(angles)], 1).tolist()
        shape = {"geometry": {"type": "Polygon", "coordinates": [ring]}}
        shape |= {"type": "Feature", "properties": {"class": "disc"}}
        document = {"type": "FeatureCollection", "features": [shape]}
        (folder / "outlines" / f"i{number:05d}.geojson").write_text(json.dumps(document))
    (folder / "recipe.yaml").write_text(RECIPE)


def verbs() -> dict[str, tuple[str, ...]]:
    model = ("--checkpoint", "run/best.safetensors")
    return {
        "tile": ("images", "--out", "store.zarr"),
        "annotate": ("store.zarr", "outlines"),
        "train": ("recipe.yaml", "--out", "run"),
        "infer": ("store.zarr", *model, "--out", "pred.zarr", "--overlap", "0"),
        "evaluate": ("pred.zarr", "--truth", "store.zarr"),
    }


def timed(folder: Path, words: tuple[str, ...]) -> tuple[float, float]:
    """Return seconds and peak memory in MB of one command."""
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "wsi_seg", *words], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(words[:2])} failed")
    child.returncode = 0
    return time.monotonic() - started, usage.ru_maxrss / 1000


def bench_images(folder: Path, count: int) -> dict[str, tuple[float, float]]:
    write_images(folder, count)
    return {verb: timed(folder, (verb, *words)) for verb, words in verbs().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    count = options.images
    fewer = max(1, count // 10)
    few = bench_images(folder / "few", fewer)
    many = bench_images(folder / "many", count)
    results = Results(figures={"images of 96 x 64 px": count})
    for verb, (seconds, memory) in many.items():
        growth = (seconds / count) / (few[verb][0] / fewer)
        results.ratios[f"{verb}, time an image, of {count} / of {fewer}"] = Ratio.once(growth)
        results.figures[verb] = f"{seconds:.0f} s, {memory:.0f} MB"
    return results


if __name__ == "__main__":
    main()
