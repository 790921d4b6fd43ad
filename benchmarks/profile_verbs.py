"""A sampling profile of tile, read, sample, train and infer on a synthetic slide.

``python benchmarks/profile_verbs.py [VERB ...] [--top 15] [--dump FOLDER]``. The stacks of all
threads are sampled a hundred times per second. For each command it prints the functions with the
most samples, exclusive and inclusive of their callees. ``--dump`` writes folded stacks for flame
graph viewers.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import bench_train
import numpy as np
import torch
from torch.utils.data import DataLoader

from wsi_seg.classes import ClassTable
from wsi_seg.data.dataset import PatchDataset
from wsi_seg.data.source import PatchSource
from wsi_seg.geometry import Region
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.ingest.run import tile_slides
from wsi_seg.learn.fit import fit
from wsi_seg.learn.sampler import patch_sampler
from wsi_seg.learn.split import split_slides
from wsi_seg.models import ModelCard, build_network
from wsi_seg.predict.ensemble import Model
from wsi_seg.progress import Silent
from wsi_seg.reading.view import View
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.store import open_collection
from wsi_seg.testing.tissue import CLASSES

PERIOD_S = 0.01
# Innermost functions of threads that wait for other threads.
WAITING = ("threading.py", "thread.py", "selectors.py", "queue.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verbs", nargs="*", choices=[*VERBS, []], help=", ".join(VERBS))
    parser.add_argument("--top", type=int, default=15)
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--dump", type=Path, help="folder for VERB.folded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = argparse.Namespace(
            encoder=options.encoder, patch=256, batch=8, patches=64, workers=0, augment="light"
        )
        recipe = bench_train.made_recipe(chosen, folder)
        for verb in options.verbs or VERBS:
            work = VERBS[verb](folder, recipe)
            with sampled() as stacks:
                started = time.perf_counter()
                work()
                seconds = time.perf_counter() - started
            print(f"== {verb}: {seconds:.1f} s, {stacks.total()} samples of threads at work")
            tell(stacks, options.top)
            if options.dump is not None:
                options.dump.mkdir(parents=True, exist_ok=True)
                lines = [f"{';'.join(stack)} {count}" for stack, count in stacks.items()]
                (options.dump / f"{verb}.folded").write_text("\n".join(lines) + "\n")


def tell(stacks: Counter[tuple[str, ...]], top: int) -> None:
    """Print the functions with the most samples, exclusive and inclusive of their callees."""
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks.items():
        alone[stack[-1]] += count
        for name in {name for name in stack if name.startswith("wsi_seg")}:
            within[name] += count
    for title, found in (("by itself", alone), ("with what it calls", within)):
        print(f"  {title}:")
        for name, count in found.most_common(top):
            print(f"    {count / stacks.total():6.1%} {name}")


@contextmanager
def sampled() -> Iterator[Counter[tuple[str, ...]]]:
    """Count the stacks of all other threads, without those that wait."""
    stacks: Counter[tuple[str, ...]] = Counter()
    stop = threading.Event()

    def watch() -> None:
        own = threading.get_ident()
        while not stop.wait(PERIOD_S):
            for ident, frame in sys._current_frames().items():
                stack = stack_of(frame) if ident != own else ()
                if stack and not stack[-1].partition(":")[0].endswith(WAITING):
                    stacks[stack] += 1

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield stacks
    finally:
        stop.set()
        thread.join()


def stack_of(frame: FrameType | None) -> tuple[str, ...]:
    """Return the functions of a stack, outermost first, as ``package/module.py:function``."""
    names: list[str] = []
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        package = next((n for n, part in enumerate(parts) if part == "site-packages"), None)
        start = len(parts) - 2 if package is None else package + 1
        if "wsi_seg" in parts:
            start = len(parts) - 1 - parts[::-1].index("wsi_seg")
        names.append(f"{'/'.join(parts[start:])}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))


def tile(folder: Path, _: object) -> Callable[[], object]:
    out = folder / "tiled.zarr"
    return lambda: tile_slides([folder / "painted.tif"], out, progress=Silent())


def read(folder: Path, _: object) -> Callable[[], object]:
    (store,) = open_collection(folder / "store.zarr")
    draws = np.random.default_rng(0).integers(0, 2048 - 512, (200, 2)).tolist()

    def work() -> None:
        for y, x in draws:
            store.image.read(Region(level=0, y=y, x=x, height=512, width=512))

    return work


def sample(folder: Path, recipe: object) -> Callable[[], object]:
    (store,) = open_collection(folder / "store.zarr")
    source = PatchSource.of(store, "annotations", classes=CLASSES, view=View(None))
    sampler = patch_sampler([TrainingSlide.of(store, "annotations")], recipe, batch=8)
    patches = PatchDataset([source], sampler, augment="light", patch_px=512, seed=0)

    def work() -> None:
        for _ in DataLoader(patches, batch_size=8, sampler=range(len(sampler))):
            pass

    return work


def train(folder: Path, recipe: object) -> Callable[[], object]:
    (split,) = split_slides(recipe)
    out = folder / "run"
    out.mkdir()
    return lambda: fit(recipe, split, out, start=None, progress=Silent())


def infer(folder: Path, recipe: object) -> Callable[[], object]:
    card = ModelCard(
        architecture="Unet",
        encoder=recipe.model.encoder,
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=None,
        tile_px=512,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    torch.manual_seed(0)
    model = Model.of(build_network(card.spec).eval(), card)
    stores = list(open_collection(folder / "store.zarr"))
    options = InferOptions(batch=4)
    return lambda: infer_with(model, stores, folder / "pred.zarr", options, progress=Silent())


VERBS: dict[str, Callable[[Path, object], Callable[[], object]]] = {
    "tile": tile,
    "read": read,
    "sample": sample,
    "train": train,
    "infer": infer,
}

if __name__ == "__main__":
    main()
