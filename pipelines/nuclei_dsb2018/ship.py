"""Train and score the model that is shipped with the package: nuclei in H&E.

    python pipelines/nuclei_dsb2018/ship.py DATA WORK [--slide CMU-1-Small-Region.svs] [--keep]

DATA is the folder of the 2018 Data Science Bowl's images; WORK is the folder for all output, from
which a stopped run resumes. The scores on held-out images are printed and, with a slide, how many
of the objects on it are too small or too large for a nucleus. With --keep, the model replaces the
one in the package.

The images have no resolution metadata. In two of the six colour groups the nuclei have three times
the area of those in the others, so these two are taken as 40x (0.25 um per pixel) and the rest as
20x.

The images also contain no glass, and so no fibres or scales with sharp edges, which a network
trained on them mistakes for nuclei. Every second image is therefore also used in a torn copy; see
`torn`.
"""

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from wsi_seg.models.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint

SCALES = {"0.25": ("he2", "he5"), "0.5": ("he0", "he1", "he3", "he4")}

# Areas of nuclei in um².
SMALLEST, LARGEST = 10, 400

ABOUT = "64 H&E images of the 2018 Data Science Bowl, stage 1 (BBBC038, CC0), see README.md"


def main() -> None:
    """Parse the arguments, train the model and score it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    with (options.data / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"].startswith("he")]
    learned = [row for row in rows if row["suggested_split"] == "train"]
    held_out = [row for row in rows if row["suggested_split"] == "val"]
    store(options.data, learned, work / "train.zarr")
    store(options.data, held_out, work / "val.zarr")
    store(work / "torn", tear(options.data, learned[::2], work / "torn"), work / "torn.zarr")
    recipe = shipped_checkpoint().with_suffix(".yaml")
    stores = f"data.stores=[{work / 'train.zarr'}, {work / 'torn.zarr'}]"
    wsi_seg("train", recipe, "--out", work / "run", "--set", stores)
    rounded = work / "nuclei_he.safetensors"
    network, card = load_checkpoint(work / "run" / "best.safetensors")
    known = {"train_slides", "validation_slides"}
    training = {key: value for key, value in card.training.items() if key not in known}
    card = replace(card, scores={}, training=training | {"data": ABOUT}, min_object_um2=SMALLEST)
    save_checkpoint(rounded, network.half(), card)
    scores = {"pooled_dice_12_unseen_images": judge(rounded, work)}
    if options.slide:
        judge_sizes(rounded, options.slide, work)
    if options.keep:
        save_checkpoint(shipped_checkpoint(), network.half(), replace(card, scores=scores))


def store(data: Path, rows: list[dict[str, str]], out: Path) -> None:
    """Tile images, each at the resolution of its group, and annotate their nuclei."""
    for mpp, groups in SCALES.items():
        images = [data / "images" / f"{r['file']}.png" for r in rows if r["cluster"] in groups]
        wsi_seg("tile", *images, "--out", out, "--mpp", mpp)
    wsi_seg("annotate", out, data / "masks", "--default-class", "nucleus")


def tear(data: Path, rows: list[dict[str, str]], out: Path) -> list[dict[str, str]]:
    """Write torn copies of images with unchanged masks, and return their rows."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    for row in rows:
        name = f"{row['file']}.png"
        with Image.open(data / "images" / name) as image, Image.open(data / "masks" / name) as mask:
            pixels = torn(np.asarray(image.convert("RGB")), np.asarray(mask) > 0, rng)
            Image.fromarray(pixels).save(out / "images" / f"torn-{name}")
            mask.save(out / "masks" / f"torn-{name}")
    return [row | {"file": f"torn-{row['file']}"} for row in rows]


def torn(
    pixels: NDArray[np.uint8], nuclei: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Tear an image into fibres with glass between them, keeping its nuclei whole.

    The tissue gets a random stain strength, and the image is sharpened as by a scanner.
    """
    height, width = nuclei.shape
    side = 2 * max(height, width)
    field = rng.normal(size=(side, side))
    field = ndimage.gaussian_filter(field, (rng.uniform(1.5, 8), rng.uniform(12, 40)))
    field = ndimage.rotate(field, rng.uniform(0, 180), reshape=False, order=1, mode="reflect")
    field = field[(side - height) // 2 :, (side - width) // 2 :][:height, :width]
    glass = field > np.quantile(field, rng.uniform(0.3, 0.8))
    glass &= ~ndimage.binary_dilation(nuclei, iterations=3)
    share = ndimage.gaussian_filter(glass.astype(float), 0.6)[..., None]
    tissue = 255 * (np.maximum(pixels, 1) / 255) ** rng.uniform(0.8, 1.6)
    white = rng.uniform(238, 248, 3) + rng.normal(0, 1.5, (height, width, 1))
    mixed = share * white + (1 - share) * tissue
    mixed += rng.uniform(0.5, 2) * (mixed - ndimage.gaussian_filter(mixed, (1, 1, 0)))
    sharpened: NDArray[np.uint8] = np.clip(mixed, 0, 255).astype(np.uint8)
    return sharpened


def judge(model: Path, work: Path) -> float:
    """Return the pooled Dice on the held-out images."""
    wsi_seg("infer", work / "val.zarr", "--checkpoint", model, "--no-skip", "--overwrite",
            "--out", work / "pred.zarr")  # fmt: skip
    wsi_seg("evaluate", work / "pred.zarr", "--truth", work / "val.zarr", "--out", work / "scores")
    scores = json.loads((work / "scores" / "scores.json").read_text())
    return round(float(scores["classes"]["nucleus"]["pooled_dice"]), 4)


def judge_sizes(model: Path, slide: Path, work: Path) -> None:
    """Print how many objects on a slide are too small or large, before and after export rules."""
    wsi_seg("tile", slide, "--out", work / "slide.zarr")
    wsi_seg("infer", work / "slide.zarr", "--checkpoint", model, "--overwrite",
            "--out", work / "found.zarr")  # fmt: skip
    for name, options in {"all": ("--threshold", "0.5"), "exported": ()}.items():
        wsi_seg("export", work / "found.zarr", "--slides", work / "slide.zarr", *options,
                "--table", work / name, "--overview", work / name)  # fmt: skip
        with (work / name / f"{slide.stem}.csv").open() as file:
            areas = [float(row["area_um2"]) for row in csv.DictReader(file)]
        small = sum(area < SMALLEST for area in areas)
        large = sum(area > LARGEST for area in areas)
        print(
            f"{name}: {len(areas)} objects, {small} below {SMALLEST}, {large} above {LARGEST} um²"
        )


def wsi_seg(*words: str | Path) -> None:
    """Run a command of the package, and raise if it fails."""
    subprocess.run([sys.executable, "-m", "wsi_seg", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
