"""Memory and time of the first strips of one slide; run in a process of its own, prints JSON.

Started by ``bench_scaling.py``. The network is one convolution, so that what is around it shows.
"""

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.run_plan import plan_inference
from wsi_seg.inference.runner import Runner
from wsi_seg.models import ModelCard
from wsi_seg.predict.ensemble import Model
from wsi_seg.predict.predictor import Predictor
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection
from wsi_seg.store.lock import sharing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--overlap", type=float, required=True)
    parser.add_argument("--strips", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [f"class{number}" for number in range(options.classes)]
    card = ModelCard(
        architecture="Unet",
        encoder="resnet18",
        in_channels=3,
        classes=ClassTable.named(names),
        mpp=None,
        tile_px=512,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    predictor = Predictor(nn.Conv2d(3, options.classes, 3, padding=1).eval(), card, device="cpu")
    model = Model.of(nn.Identity(), card)
    (store,) = open_collection(options.store)
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    chosen = InferOptions(overlap=options.overlap, batch=4, device="cpu", skip_background=False)
    plan = plan_inference([store], model, chosen)
    planned = time.perf_counter() - started
    create_collection(options.out)
    every = len(plan.slides[0][0].strips)
    with sharing(options.out, "bench") as presence:
        output = SlideOutput(
            store, plan.slides[0], options.out, {}, presence, save="both", overwrite=False
        )
        output.begin(card, {})
        output.take(range(every))
    task = replace(output.task, strips=frozenset(range(min(options.strips, every))))
    started = time.perf_counter()
    assert plan.memory is not None
    saver = task.saver()
    work = StripJob(task, lambda strip: saver.write(strip(), ()))
    runner = Runner(model, chosen, load=lambda *_: predictor)
    tiles = runner.produce([work], plan.memory, compiled=False, progress=Silent()).tiles
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps({
            "peak_mb": (peak - before) / 1e6,
            "plan_s": planned,
            "ms_per_tile": 1000 * seconds / tiles,
            "tiles": plan.tiles,
            "strips": every,
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
