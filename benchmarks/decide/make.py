"""Makes what `bench_decide` scores and exports; in a process of its own, prints JSON.

``python benchmarks/decide/make.py made FOLDER --height 26880 --width 30144`` makes a prediction and
its truth, and tells how many CPU seconds inference would take; ``truth FOLDER`` makes the truth of
a prediction that is there.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Extent, extend_pyramid
from wsi_seg.models.checkpoint import load_checkpoint, shipped_checkpoint
from wsi_seg.postprocess.strips import Source, Strip, label_strips
from wsi_seg.postprocess.write import write_label
from wsi_seg.predict.predictor import Predictor
from wsi_seg.progress import Silent
from wsi_seg.store import (
    Layout,
    create_collection,
    create_multiscale,
    fill_pyramid,
    open_collection,
    open_predictions,
    strip_rows,
    write_strip,
)
from wsi_seg.testing.stores import make_huge_store

CELL_PX = 48
CLASSES = ClassTable.named(["nucleus"])
MPP = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["made", "truth"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    options = parser.parse_args()
    figures: dict[str, object] = {}
    if options.what == "made":
        extent = Extent(height=options.height, width=options.width)
        write_prediction(options.folder, extent)
        figures["cpu_s"] = inference_s(extent)
    (found,) = open_predictions(options.folder / "pred.zarr")
    write_truth(options.folder, lambda rows: label_strips(found.label("prediction"), strip_px=rows))
    print(json.dumps(figures))


def write_prediction(folder: Path, extent: Extent) -> None:
    make_huge_store(folder / "store.zarr", "slide", extent)
    create_collection(folder / "pred.zarr")
    group = folder / "pred.zarr" / "slide"
    label = group / "labels" / "prediction"
    for path, channels, kind in ((group, 1, "prediction"), (label, None, "label")):
        layout = Layout.of(extend_pyramid([extent]), channels=channels, mpp=MPP)
        create_multiscale(path, layout, {"kind": kind, "classes": CLASSES.to_json()})
    for strip in nuclei(extent, strip_rows(group)):
        write_strip(group, 0, strip.y, strip.probability[:, :, None])
        write_strip(label, 0, strip.y, strip.ids)
    fill_pyramid(group, nearest=False, progress=Silent())
    fill_pyramid(label, nearest=True, progress=Silent())


def inference_s(extent: Extent) -> float:
    """CPU seconds of the shipped model for tiles that overlap by half, over half of the slide."""
    network, card = load_checkpoint(shipped_checkpoint())
    predictor = Predictor(network, card, device="cpu")
    side = card.tile_px
    tiles = torch.randint(256, (8, side, side, 3), dtype=torch.uint8)
    predictor.predict(tiles)
    started = time.process_time()
    for _ in range(4):
        predictor.predict(tiles)
    return (time.process_time() - started) / 32 * extent.area / 2 / (side / 2) ** 2


def write_truth(folder: Path, source: Callable[[int], Source]) -> None:
    """Write the label ``annotations``: what was found, moved by two pixels."""
    (slide,) = open_collection(folder / "store.zarr")

    def moved(rows: int) -> Source:
        def strips() -> Iterator[Strip]:
            for strip in source(rows)():
                yield Strip(strip.y, np.roll(strip.ids, 2, axis=1), strip.probability)

        return strips

    write_label(slide, "annotations", moved, classes=CLASSES, note={})


def nuclei(extent: Extent, rows: int) -> Iterator[Strip]:
    """Discs in places of chance in the left half; neighbours may touch."""
    cells = Extent(height=-(-extent.height // CELL_PX), width=-(-extent.width // CELL_PX))
    rng = np.random.default_rng(0)
    size = (cells.height, cells.width)
    middle_y, middle_x = (rng.uniform(14, 34, size).astype(np.float32) for _ in range(2))
    radius = rng.uniform(9, 26, size).astype(np.float32)
    radius[:, cells.width // 2 :] = 0
    x = np.arange(extent.width)
    for y in range(0, extent.height, rows):
        parts = [
            discs(np.arange(row, min(row + CELL_PX, y + rows, extent.height)), x,
                  middle_y, middle_x, radius)
            for row in range(y, min(y + rows, extent.height), CELL_PX)
        ]  # fmt: skip
        probability = np.concatenate(parts)
        yield Strip(y, (probability > 127).astype(np.uint8), probability)


def discs(y, x, middle_y, middle_x, radius) -> NDArray[np.uint8]:  # noqa: ANN001
    """Probabilities of a few rows, falling from the middle of each disc to its border."""
    cell = (y // CELL_PX)[:, None], (x // CELL_PX)[None, :]
    dy = (y % CELL_PX)[:, None] - middle_y[cell]
    dx = (x % CELL_PX)[None, :] - middle_x[cell]
    inside = radius[cell] - np.sqrt(dy * dy + dx * dx)
    return np.clip(128 + 12 * inside, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
