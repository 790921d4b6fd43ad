"""Distil an ensemble into one network for nuclei, and compare methods of weight averaging.

    python pipelines/nuclei_dsb2018/distil.py DATA WORK [--set train.epochs=24] [--seeds 3]

DATA is the folder of the 2018 Data Science Bowl's images; WORK is a new folder for all output. The
teacher is three folds of the small recipe's network, with test-time augmentation over eight
orientations. Students are a single such network, trained on the same images with the same draws: on
the manual annotations, on the teacher's hard labels, or on its probabilities. The same recipe is
then trained with its best epoch, a moving average (EMA), SWA from half of the epochs on, or a
greedy soup of its eight best epochs, with every fifth training image held out.

All are scored on the images of the suggested split, and the results are in WORK/distil.json. Speed
is measured on a large image composed of these images, on an idle machine; for an ensemble, a tile
counts once per member.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

RECIPE = Path(__file__).with_name("recipe-small.yaml")

STUDENTS = {
    "labels of people": ("data.validation=0",),
    "hard labels": ("data.validation=0", "data.label=hard", "data.pseudo_weight=1"),
    "soft labels": ("data.validation=0", "data.label=soft", "data.pseudo_weight=1"),
}

# Validate every epoch, to select the best.
_HELD_OUT = ("data.validation=0.2", "train.validate_every=1")
AVERAGES = {
    "best epoch": (*_HELD_OUT, "train.ema=null"),
    "EMA": (*_HELD_OUT, "train.ema=0.99"),
    "SWA": (*_HELD_OUT, "train.ema=null", "train.swa_from=0.5"),
    "greedy soup": (*_HELD_OUT, "train.ema=null", "train.top_k=8", "ensemble.average=greedy"),
}

Figures = dict[str, object]


class Work:
    """Runs commands of the package in a folder, and records their results.

    Parameters
    ----------
    folder
        Folder for all output.
    settings
        ``--set`` settings of every training.
    overlap
        Overlap of tiles in inference.
    """

    def __init__(self, folder: Path, settings: list[str], overlap: str) -> None:
        self.folder, self.settings, self._overlap = folder, settings, overlap
        self.figures: Figures = {"settings": settings, "overlap": overlap}
        self._started = time.monotonic()

    def run(self, *words: str | Path) -> Figures:
        """Run a command, and return its JSON summary; raise if it fails."""
        command = [sys.executable, "-m", "wsi_seg", *map(str, words), "--json"]
        printed = subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.PIPE)
        found: Figures = json.loads(printed.stdout.splitlines()[-1])
        return found

    def train(self, name: str, *settings: str) -> Path:
        """Train by the small recipe, and return the model."""
        out = self.folder / name
        chosen = [f"data.stores=[{self.folder / 'seen.zarr'}]", *self.settings, *settings]
        found = self.run("train", RECIPE, "--out", out, *_set(chosen))
        return Path(str(found["ensemble"] or next(iter(_texts(found["members"])))))

    def predict(self, slides: str, model: Path, out: str, tta: str = "none") -> Figures:
        """Predict a collection without torch.compile, so that speeds are comparable."""
        return self.run(
            "infer", slides, "--checkpoint", model, "--tta", tta, "--no-skip", "--compile", "off",
            "--overlap", self._overlap, "--out", out,
        )  # fmt: skip

    def dice(self, name: str, model: Path, tta: str = "none") -> float:
        """Return the pooled Dice on the unseen images."""
        self.predict("unseen.zarr", model, f"pred-{name}.zarr", tta)
        scores = self.folder / f"scores-{name}"
        self.run("evaluate", f"pred-{name}.zarr", "--truth", "unseen.zarr", "--out", scores)
        found = json.loads((scores / "scores.json").read_text())
        return float(found["classes"]["nucleus"]["pooled_dice"])

    def note(self, name: str, value: object) -> None:
        """Record a result, and write all results to disk."""
        self.figures[name] = value
        self.figures["seconds"] = round(time.monotonic() - self._started)
        (self.folder / "distil.json").write_text(json.dumps(self.figures, indent=1))
        print(f"{self.figures['seconds']} s: {name}: {value}", flush=True)


def main() -> None:
    """Parse the arguments, prepare the data, and train teacher, students and averages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--set", action="append", default=[], help="setting of every training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--overlap", default="0.5", help="overlap of tiles in inference")
    parser.add_argument("--side", type=int, default=4096, help="side of the large image in pixels")
    options = parser.parse_args()
    work = Work(options.work.resolve(), options.set, options.overlap)
    work.folder.mkdir(parents=True)
    prepare(work, options.data.resolve(), options.side)
    teacher = teach(work)
    train_all(work, STUDENTS, options.seeds, options.jobs)
    models = {"teacher": (teacher, "d4"), "one fold of it": (fold_of(teacher), "none")}
    models["student"] = (work.folder / "soft-labels-0" / "best.safetensors", "none")
    for name, (model, tta) in models.items():
        found = work.predict("large.zarr", model, f"large-{slug(name)}.zarr", tta)
        work.note(f"speed of {name}", {key: found[key] for key in ("tiles", "seconds", "device")})
    train_all(work, AVERAGES, options.seeds, options.jobs)


def train_all(work: Work, recipes: dict[str, tuple[str, ...]], seeds: int, at_a_time: int) -> None:
    """Train with each of the settings, once per seed, and score all."""
    with ThreadPoolExecutor(at_a_time) as pool:
        runs = {
            name: [
                pool.submit(score, work, f"{slug(name)}-{seed}", (*settings, f"seed={seed}"))
                for seed in range(seeds)
            ]
            for name, settings in recipes.items()
        }
        for name, found in runs.items():
            work.note(name, spread(run.result() for run in found))


def prepare(work: Work, data: Path, side: int) -> None:
    """Tile and annotate the images of both splits, and compose a large one for timing."""
    with (data / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, part in {"seen": "train", "unseen": "val"}.items():
        images = [
            data / "images" / f"{row['file']}.png" for row in rows if row["suggested_split"] == part
        ]
        work.run("tile", *images, "--out", f"{name}.zarr")
        work.run("annotate", f"{name}.zarr", data / "masks", "--default-class", "nucleus")
    large = work.folder / "large.png"
    mosaic([data / "images" / f"{row['file']}.png" for row in rows], side).save(large)
    work.run("tile", large, "--out", "large.zarr")


def mosaic(images: list[Path], side: int, cell: int = 256) -> Image.Image:
    """Fill a square with the corners of images, cycling through them."""
    made = Image.new("RGB", (side, side))
    for number in range((side // cell) ** 2):
        with Image.open(images[number % len(images)]) as image:
            corner = image.convert("RGB").crop((0, 0, cell, cell))
        made.paste(corner, (number % (side // cell) * cell, number // (side // cell) * cell))
    return made


def teach(work: Work) -> Path:
    """Train and score the teacher, and write its predictions on the training images as labels."""
    folds = ("data.folds=3", "ensemble.out_of_fold=false")
    teacher = work.train("teacher", *folds)
    work.note("one fold of the teacher", work.dice("fold", fold_of(teacher)))
    work.note("teacher", work.dice("teacher", teacher, "d4"))
    work.predict("seen.zarr", teacher, "taught.zarr", "d4")
    for name, how in {"hard": ("--high", "0.5", "--low", "0.5"), "soft": ("--soft",)}.items():
        settings = [f"data.stores=[{work.folder / 'seen.zarr'}]", *STUDENTS[f"{name} labels"]]
        work.run("pseudo", "taught.zarr", "seen.zarr", "--recipe", RECIPE, *how, *_set(settings))
    return teacher


def fold_of(teacher: Path) -> Path:
    """Return the model of the first fold."""
    return teacher.parent / "fold_0" / "best.safetensors"


def score(work: Work, name: str, settings: tuple[str, ...]) -> float:
    """Train, and return the Dice on the unseen images."""
    return work.dice(name, work.train(name, *settings))


def spread(values: Iterable[float]) -> dict[str, object]:
    """Return the mean over seeds, and each value."""
    found = list(values)
    return {"mean": round(statistics.fmean(found), 4), "seeds": [round(v, 4) for v in found]}


def slug(name: str) -> str:
    """Return a name without spaces for files."""
    return name.replace(" ", "-")


def _set(settings: Iterable[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _texts(values: object) -> list[str]:
    assert isinstance(values, list)
    return [str(value) for value in values]


if __name__ == "__main__":
    main()
