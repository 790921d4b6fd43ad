"""Every export of one slide: seconds, peak memory, size on disk, against those of inference.

With a slide, the bundled model predicts it, and the measurements of docs/figures.md are printed,
except for DICOM, which needs DICOM slides. Without a slide, a synthetic label map of ``--objects``
discs of 10 to 16 pixels is exported as GeoJSON (goals for a million: 60 s, 1 GB). Every export runs
in its own process. Run it alone: ``python benchmarks/bench_export.py [SLIDE] [--json]``.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure import Ratio, Results

EXPORTS = {
    "GeoJSON": ("--geojson", "geojson"),
    "GeoJSON, gzipped": ("--geojson", "packed", "--gz"),
    "GeoJSON, borders of pixels": ("--geojson", "stairs", "--simplify", "0"),
    "GeoParquet": ("--geoparquet", "geoparquet"),
    "ASAP's XML": ("--asap", "asap"),
    "COCO": ("--coco", "coco.json"),
    "tables": ("--table", "table"),
    "run lengths": ("--rle", "masks.csv"),
    "PNG": ("--png", "png"),
    "OME-TIFF": ("--ome-tiff", "tiff"),
    "OME-Zarr 0.5": ("--ome-zarr", "zarr5"),
    "OME-Zarr 0.4": ("--ome-zarr", "zarr4", "--ngff", "0.4"),
    "OME-Zarr, one file": ("--ome-zarr", "ozx", "--ozx"),
    "SpatialData": ("--spatialdata", "spatialdata"),
}
SPACING_PX = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and memory of a command."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="working folder; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = Results()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.slide is None:
            # In another process, because forked commands start with the peak memory of this one.
            maker = multiprocessing.get_context("spawn").Process(
                target=make, args=(folder / "pred.zarr", options.objects)
            )
            maker.start()
            maker.join()
            results |= cost(folder, f"GeoJSON of {options.objects} objects", EXPORTS["GeoJSON"])
            results.show(as_json=options.json)
            return
        timed(folder, "tile", str(options.slide.resolve()), "--out", "store.zarr")
        inference = timed(folder, "infer", "store.zarr", "--out", "pred.zarr")
        results.figures["inference, CPU s"] = round(inference.cpu_s, 1)
        for export, words in EXPORTS.items():
            results |= cost(folder, export, words, inference_s=inference.cpu_s)
    results.show(as_json=options.json)


def cost(
    folder: Path, export: str, words: tuple[str, ...], *, inference_s: float | None = None
) -> Results:
    """Run one export, and return its time, memory and size."""
    found = timed(folder, "export", "pred.zarr", *words)
    size = sum(path.stat().st_size for path in files(folder / words[1])) / 1e6
    figures: dict[str, object] = {
        f"{export}, s": round(found.wall_s, 1),
        f"{export}, CPU s": round(found.cpu_s, 1),
        f"{export}, peak MB": round(found.peak_mb),
        f"{export}, MB on disk": round(size, 2),
    }
    if inference_s is None:
        return Results(figures=figures)
    ratio = Ratio.once(found.cpu_s / inference_s)
    return Results({f"{export} / inference, CPU time": ratio}, figures)


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def timed(folder: Path, *words: str) -> Cost:
    """Run one command; its peak memory is at least that of this process."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "wsi_seg", *words], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    wall = time.perf_counter() - started
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def make(path: Path, objects: int) -> None:
    """Write a prediction of discs of random sizes on a square grid."""
    import numpy as np

    from wsi_seg.classes import ClassTable
    from wsi_seg.store import create_collection
    from wsi_seg.testing.stores import write_image

    across = int(np.ceil(np.sqrt(objects)))
    side = across * SPACING_PX
    place = np.arange(side)
    offset = (place % SPACING_PX - SPACING_PX / 2 + 0.5) ** 2
    radius = np.random.default_rng(0).uniform(5, 8, (across, across)).astype(np.float32)
    radius.ravel()[objects:] = 0
    ids = np.empty((side, side), np.uint8)
    for row in range(across):
        rows = slice(row * SPACING_PX, (row + 1) * SPACING_PX)
        ids[rows] = offset[rows, None] + offset < radius[row][place // SPACING_PX] ** 2
    classes = ClassTable.named(["nucleus"]).to_json()
    create_collection(path)
    write_image(path / "slide", ids[..., None] * np.uint8(200),
                {"kind": "prediction", "classes": classes, "saved": "both"})  # fmt: skip
    about = {"kind": "label", "classes": classes}
    write_image(path / "slide" / "labels" / "prediction", ids, about)


if __name__ == "__main__":
    main()
