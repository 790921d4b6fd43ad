"""A slide of ten gigapixels: planned at once, and started within the memory that was planned."""

import json
import os
import subprocess
import sys

import pytest

from wsi_seg.geometry import Extent
from wsi_seg.testing.stores import make_huge_store

HUGE = Extent(height=100_000, width=100_000)

SCRIPT = """
import json, resource, sys, time
from dataclasses import replace
from pathlib import Path
import psutil, torch
from wsi_seg.classes import ClassTable
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run_plan import plan_inference
from wsi_seg.inference.runner import Runner
from wsi_seg.models import ModelCard, NetworkSpec, build_network
from wsi_seg.predict.ensemble import Model
from wsi_seg.progress import Silent
from wsi_seg.store import create_collection, open_collection
from wsi_seg.store.lock import sharing

collection, out, strips, ram = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
card = ModelCard(
    architecture="Unet", encoder="resnet18", in_channels=3, classes=ClassTable.named(["a"]),
    mpp=0.5, tile_px=512, mean=(0.5,) * 3, std=(0.25,) * 3,
)
model = Model.of(build_network(NetworkSpec("Unet", "resnet18", 3, 1)), card)
options = InferOptions(max_ram=int(float(ram)) or None)
before = psutil.Process().memory_info().rss
started = time.process_time()
plan = plan_inference(list(open_collection(collection)), model, options)
seconds = time.process_time() - started
growth = psutil.Process().memory_info().rss - before
found = {"seconds": seconds, "growth": growth, "tiles_planned": plan.tiles,
         "skipped": plan.skipped, "total": plan.memory.total, "strip_px": plan.memory.strip_px}
if strips:
    create_collection(out)
    (store,) = open_collection(collection)
    with sharing(out, "test") as presence:
        output = SlideOutput(
            store, plan.slides[0], out, {}, presence, save="both", overwrite=False
        )
        output.begin(card, {})
        output.take(range(len(plan.slides[0][0].strips)))
    task = output.task
    first = frozenset(range(min(strips, len(plan.slides[0][0].strips))))
    saver = task.saver()
    strip_job = StripJob(replace(task, strips=first), lambda strip: saver.write(strip(), ()))
    stats = Runner(model, options).produce(
        [strip_job], plan.memory, compiled=False, progress=Silent()
    )
    found["tiles"] = stats.tiles
    found["written"] = len(list(task.target.glob("0/c/*/*/*")))
found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(found))
"""


def start_run(folder, *, strips, ram):
    command = [sys.executable, "-c", SCRIPT, folder / "s.zarr", folder / "p.zarr"]
    done = subprocess.run(
        [*map(str, command), str(strips), str(ram)],
        check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_ten_gigapixels_are_planned_at_once(tmp_path):
    make_huge_store(tmp_path / "s.zarr", "huge", HUGE)
    found = start_run(tmp_path, strips=0, ram=0)
    assert found["tiles_planned"] + found["skipped"] == 390**2
    assert 0 < found["tiles_planned"] < 5 * 390
    assert found["growth"] < 200e6  # beyond torch itself, which takes more than that
    print(f"planned in {found['seconds']:.1f} s, {found['growth'] / 1e6:.0f} MB")


@pytest.mark.torture
def test_its_first_twenty_strips_stay_within_the_plan(tmp_path):
    make_huge_store(tmp_path / "s.zarr", "huge", HUGE)
    found = start_run(tmp_path, strips=20, ram=2.5e9)
    assert found["tiles"] >= 160
    assert found["written"] >= 20
    assert found["total"] <= 2.5e9
    print(f"planned {found['total'] / 1e6:.0f} MB, peak {found['peak'] / 1e6:.0f} MB")
    assert found["peak"] <= found["total"]


@pytest.mark.torture
def test_memory_does_not_grow_with_the_height_of_a_slide(tmp_path):
    peaks = []
    for height in (5_000, 20_000):
        folder = tmp_path / str(height)
        make_huge_store(folder / "s.zarr", "wide", Extent(height=height, width=50_000))
        found = start_run(folder, strips=999, ram=0)
        assert found["tiles"] == found["tiles_planned"]
        peaks.append(found["peak"])
    print(f"peaks {peaks[0] / 1e6:.0f} and {peaks[1] / 1e6:.0f} MB")
    assert peaks[1] < 1.05 * peaks[0]
