"""Build two mosaic slides: annotated kidney images scattered over other tissue and glass.

The real kidney slides are not available, and single images test neither sampling nor seams. The
images are therefore placed, without overlap, on large canvases of tissue without glomeruli: `seen`
with the training patients, `unseen` with the others. Their polygons are transferred. In the format
of the competition's anatomical structures, kidney images are Cortex and empty grid cells Medulla.

    python prepare.py GLOMERULI_FOLDER OTHER_SLIDE OUT [--side 16000] [--two-classes]
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_seg.geometry import Region
from wsi_seg.slides import open_slide

# The images have no resolution; with this one, x2 to x4 are 1 to 2 um per pixel.
MPP = 0.5
TILE = 512
GLASS = (241, 240, 243)

# Sclerosed glomeruli and other lesions; the rest is healthy.
UNHEALTHY = {"gs", "gl", "gm"}

Canvas = NDArray[np.uint8]


def main() -> None:
    """Parse the arguments and build both mosaics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("glomeruli", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=16000)
    parser.add_argument("--two-classes", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.glomeruli / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, split in (("seen", "train"), ("unseen", "val")):
        chosen = [row for row in rows if row["suggested_split"] == split]
        build(name, chosen, options)


def build(name: str, rows: list[dict[str, str]], options: argparse.Namespace) -> None:
    """Write one mosaic as a TIFF, and its polygons as GeoJSON."""
    rng = np.random.default_rng(len(name))
    side = options.side
    scratch = options.out / f"{name}.canvas"
    canvas = np.memmap(scratch, dtype=np.uint8, mode="w+", shape=(side, side, 3))
    paint(canvas, options.other, rng)
    features: list[dict[str, object]] = []
    # Each image has its own grid cell, so that nothing overlaps.
    height, width = 1024 + 200, 1360 + 200
    cells = [(y, x) for y in range(0, side - height, height) for x in range(0, side - width, width)]
    if len(cells) < len(rows):
        raise SystemExit(f"{len(rows)} images need a larger --side than {side}")
    order = rng.permutation(len(cells))
    regions = [named_box("Medulla", *cells[cell], height, width) for cell in order[len(rows) :]]
    for row, cell in zip(rows, order, strict=False):
        y = cells[cell][0] + int(rng.integers(0, 200))
        x = cells[cell][1] + int(rng.integers(0, 200))
        with Image.open(options.glomeruli / "images" / row["image"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        canvas[y : y + len(pixels), x : x + pixels.shape[1]] = pixels
        regions.append(named_box("Cortex", y, x, len(pixels), pixels.shape[1]))
        document = json.loads((options.glomeruli / "annotations" / row["annotation"]).read_text())
        features += [
            feature(shape, y, x, two_classes=options.two_classes) for shape in document["shapes"]
        ]
    collection = {"type": "FeatureCollection", "features": features}
    (options.out / f"{name}.geojson").write_text(json.dumps(collection))
    (options.out / f"{name}-anatomical-structure.json").write_text(json.dumps(regions))
    tiles = (
        np.ascontiguousarray(canvas[y : y + TILE, x : x + TILE])
        for y in range(0, side, TILE)
        for x in range(0, side, TILE)
    )
    tifffile.imwrite(
        options.out / f"{name}.tif", tiles, shape=canvas.shape, dtype=np.uint8, bigtiff=True,
        tile=(TILE, TILE), compression="jpeg", compressionargs={"level": 90}, photometric="rgb",
        resolution=(1e4 / MPP, 1e4 / MPP), resolutionunit="CENTIMETER",
    )  # fmt: skip
    scratch.unlink()
    print(f"{name}: {len(rows)} images, {len(features)} polygons")


def paint(canvas: Canvas, other: Path, rng: np.random.Generator) -> None:
    """Cover a canvas with glass, and half of it with blocks of another slide."""
    block = 1000
    with open_slide(other) as slide:
        full = slide.pyramid.extent
        for y in range(0, len(canvas), block):
            here = canvas[y : y + block]
            here[:] = np.clip(rng.normal(GLASS, 2, here.shape), 0, 255)
            for x in range(0, canvas.shape[1], block):
                part = here[:, x : x + block]
                if rng.random() < 0.5:
                    top = int(rng.integers(full.height // 4, full.height * 3 // 4 - block))
                    left = int(rng.integers(full.width // 4, full.width * 3 // 4 - block))
                    part[:] = slide.read(
                        Region(level=0, y=top, x=left, height=part.shape[0], width=part.shape[1])
                    )


def feature(shape: dict[str, object], y: int, x: int, *, two_classes: bool) -> dict[str, object]:
    """Convert a LabelMe polygon to GeoJSON, moved to its position on the canvas."""
    points = shape["points"]
    assert isinstance(points, list)
    name = "glomerulus"
    if two_classes:
        name = "unhealthy" if shape["label"] in UNHEALTHY else "healthy"
    return named_ring(name, [[px + x, py + y] for px, py in points])


def named_box(name: str, y: int, x: int, height: int, width: int) -> dict[str, object]:
    """Return a rectangle as a GeoJSON feature."""
    return named_ring(name, [[x, y], [x + width, y], [x + width, y + height], [x, y + height]])


def named_ring(name: str, ring: list[list[float]]) -> dict[str, object]:
    """Return a polygon as a GeoJSON feature."""
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"classification": {"name": name}},
    }


if __name__ == "__main__":
    main()
