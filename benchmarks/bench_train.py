"""Training from slides, against the same steps on patches in memory.

``python benchmarks/bench_train.py [--encoder resnet18] [--patch 256] [--workers 1] [--json]``

Training is the real `fit` with sampler, reader, augmentation, loader, loss and optimiser. The floor
is a plain loop over one fixed batch with the same network, loss, precision and optimiser; without a
GPU, ``--spared 1`` gives it one thread less, which the loader needs. The two alternate; the second
epoch of each fit counts, after the loader's processes have started.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import Ratio, Results, in_turn, medians

from wsi_seg.annotations import read_annotations
from wsi_seg.config import Recipe, load_recipe
from wsi_seg.ingest.run import tile_slides
from wsi_seg.learn.fit import build_learner, fit
from wsi_seg.learn.optim import build_optimizer
from wsi_seg.learn.pace import training_precision
from wsi_seg.learn.split import Split, split_slides
from wsi_seg.learn.task import SegmentationTask
from wsi_seg.masks.labels import write_labels
from wsi_seg.predict.device import pick_device
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.testing.tissue import CLASSES, write_tissue_slide

RECIPE = """
classes: {classes}
data: {{stores: [{store}], label: annotations, validation: 0}}
mpp: null
patch_px: {patch}
augment: {augment}
model: {{architecture: {architecture}, encoder: {encoder}, weights: null}}
train: {{epochs: 2, batch_size: {batch}, workers: {workers}}}
sampling: {{patches_per_epoch: {patches}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="Unet")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patches", type=int, default=64, help="patches per epoch")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--augment", default="light")
    parser.add_argument("--spared", type=int, default=0, help="threads to take from the floor")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    recipe = made_recipe(options, folder)
    (split,) = split_slides(recipe)
    step = stepping(recipe, split)
    step()  # kernels are chosen
    waits = []

    def whole(turn: int) -> float:
        out = folder / f"run{turn}"
        out.mkdir()
        row = fit(recipe, split, out, start=None, progress=Silent()).history.rows[-1]
        waits.append(row["data_wait"])
        return row["patches_per_second"]

    def fixed(_: int) -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads - options.spared))
        started, steps = time.perf_counter(), options.patches // options.batch
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - started
        torch.set_num_threads(threads)
        return steps * options.batch / seconds

    found = in_turn({"from slides": whole, "fixed tensors": fixed}, options.repeats)
    return Results(
        {
            "from slides / fixed tensors": Ratio.of(found["from slides"], found["fixed tensors"]),
            "share of the time waiting for patches": Ratio.of(waits, [1.0] * len(waits)),
        },
        {"encoder": options.encoder, "patch_px": options.patch, "workers": options.workers}
        | medians(found, "patches/s"),
    )


def made_recipe(options: argparse.Namespace, folder: Path) -> Recipe:
    """Make the recipe of a synthetic slide with outlines."""
    slide, store = folder / "painted.tif", folder / "store.zarr"
    write_tissue_slide(slide, height=2048, width=2560, seed=1)
    tile_slides([slide], store, progress=Silent())
    annotations = read_annotations(slide.with_suffix(".geojson"))
    for one in open_collection(store):
        write_labels(one, annotations, CLASSES, "annotations")
    path = folder / "recipe.yaml"
    names = "[" + ", ".join(f"{{name: {name}}}" for name in CLASSES.names) + "]"
    path.write_text(RECIPE.format(classes=names, store=store, **vars(options)))
    return load_recipe(path)


def stepping(recipe: Recipe, split: Split) -> Callable[[], None]:
    """Make an optimiser step on a batch of noise that stays on the device."""
    device = pick_device("auto")
    learner, card = build_learner(recipe, split, start=None)
    task = SegmentationTask(learner, card, recipe, steps_per_epoch=1).to(device)
    optimizer = build_optimizer(task.learner, recipe.optimizer)
    batch, side = recipe.train.batch_size, recipe.patch_px
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=device)
    labels = torch.randint(0, len(recipe.classes) + 1, (batch, side, side), device=device)
    weights = torch.ones(batch, device=device)
    bf16 = training_precision(recipe.train.precision, device) == "bf16"

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            found = task.training_step((images, labels.to(torch.uint8), weights), 0)
        found["loss"].backward()
        optimizer.step()
        if task.average is not None:
            task.average.update_parameters(task.learner.network)
        optimizer.zero_grad()

    task.train()
    return step


if __name__ == "__main__":
    main()
