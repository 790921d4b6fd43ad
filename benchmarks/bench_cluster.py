"""A simulated cluster: what dask and the client cost when workers only sleep.

``python benchmarks/bench_cluster.py [--workers 8 64] [--slides N] [--json]``; at length:
``--workers 512 --slides 100000 --strips 1``. Client, scheduler and all workers are three
processes on this machine. The client runs the real `DaskExecutor`; a worker sleeps for as long as
reading, networks and coarser levels of a part are said to take, so that hundreds of them fit on
two cores. Parts are shorter than real ones, so what each costs the scheduler and the client shows;
from that follows how many workers the design holds with parts of a real length.

What files cost is counted apart: small slides are predicted in this process by a network
that does not sleep; the operations of the file system that one more slide costs are noted, and
the CPU time of one more slide, which the client spends in part and workers in part.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from cluster.sleeping import LoadSleeping
from distributed import Client
from measure import Ratio, Results

from wsi_seg.classes import ClassTable
from wsi_seg.inference.distribute import DaskExecutor
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import SlidePlan, plan_slide
from wsi_seg.inference.run import infer_with
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.task import StripTask
from wsi_seg.models import ModelCard
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.store import SlideStore, open_collection
from wsi_seg.testing.stores import make_store

HERE = Path(__file__).resolve().parent
TILE_PX, STRIP_PX = 64, 512
TILES = STRIP_PX // TILE_PX  # of a strip
CARD = ModelCard(
    architecture="Unet",
    encoder="resnet18",
    in_channels=3,
    classes=ClassTable.named(["thing"]),
    mpp=None,
    tile_px=TILE_PX,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
MODEL = Model((Member(CARD, "sleeping"),))
# Python's audit events that are operations of a file system. Whether a file is there, and its size,
# Python asks for without one; these functions are counted, and others that ask are not.
DISK_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir",
               "os.scandir", "os.truncate", "os.link"}  # fmt: skip
ASKED = ("stat", "lstat")
# Slides whose metadata are counted; what is done once a run is in both.
FEW, MANY = 4, 44
# A part of 16 strips of 1,024 rows, 50,000 px wide, 512 px tiles at half overlap, on a GPU that
# predicts 500 tiles/s.
REAL_PART_S = 16 * 4 * 195 / 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--slides", type=int, default=0, help="0: four for each worker and 16")
    parser.add_argument("--strips", type=int, default=4, help="of each slide")
    parser.add_argument("--batch", type=int, default=8, help="tiles; a strip has eight")
    parser.add_argument("--batch-s", type=float, default=0.6, help="of a batch, read and predicted")
    parser.add_argument("--finish-s", type=float, default=0.3, help="of a slide's coarser levels")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder) / "store.zarr", "slide", options.strips * STRIP_PX, TILE_PX)
        (store,) = open_collection(Path(folder) / "store.zarr")
        results |= metadata(store, Path(folder))
        for workers in options.workers:
            out = Path(folder) / f"pred{workers}.zarr"
            results |= measure(workers, store, out, options)
    results.show(as_json=options.json)


def metadata(store: SlideStore, folder: Path) -> Results:
    """Count what one more slide costs the file system and this process, reading it included."""
    counts: list[Counter[str]] = []
    spent: list[float] = []
    noted: Counter[str] = Counter()
    sys.addaudithook(lambda event, _: noted.update([event]) if event in DISK_EVENTS else None)
    for slides in (FEW, MANY):
        stores = [replace(store, name=f"slide{number}") for number in range(slides)]
        chosen = InferOptions(overlap=0.0, batch=8, device="cpu", precision="fp32")
        executor = SerialExecutor(MODEL, chosen, load=LoadSleeping(0.0))
        noted.clear()
        started = time.process_time()
        out = folder / f"metadata{slides}.zarr"
        with asking_counted(noted):
            infer_with(MODEL, stores, out, chosen, executor=executor, progress=Silent())
        counts.append(noted.copy())
        spent.append(time.process_time() - started)
    few, many = counts
    more = MANY - FEW
    each = {event: (many[event] - few[event]) / more for event in sorted(many)}
    figures: dict[str, object] = {
        f"a slide, {event}": round(count, 1) for event, count in each.items()
    }
    figures["a slide, CPU ms of all its files"] = round(1000 * (spent[1] - spent[0]) / more, 1)
    asked = sum(count for event, count in each.items() if event in ASKED)
    return Results(
        {
            "metadata operations a slide": Ratio.once(sum(each.values()) - asked),
            "metadata operations a slide, with stat": Ratio.once(sum(each.values())),
        },
        figures,
    )


@contextmanager
def asking_counted(noted: Counter[str]) -> Iterator[None]:
    """Count what is asked about files meanwhile."""

    def counted[**P, R](name: str, real: Callable[P, R]) -> Callable[P, R]:
        def ask(*args: P.args, **more: P.kwargs) -> R:
            noted.update([name])
            return real(*args, **more)

        return ask

    with ExitStack() as stack:
        for name in ASKED:
            stack.enter_context(patch.object(os, name, counted(name, getattr(os, name))))
        yield


def measure(workers: int, store: SlideStore, out: Path, options: argparse.Namespace) -> Results:
    """One run on so many workers."""
    slides = options.slides or 4 * workers + 16
    with cluster(workers, options, out.parent) as (client, scheduler, pretenders):
        first = min(client.scheduler_info(n_workers=-1)["workers"])
        # Asks each worker for its versions, which hundreds in one process say one after another.
        executor = DaskExecutor(
            client,
            MODEL,
            InferOptions(overlap=0.0, batch=options.batch, device="cpu", precision="fp32"),
            load=LoadSleeping(options.batch_s),
        )
        infer(begun(store, 4 * workers, out), executor, options)
        client.run(forget, workers=[first])
        before = psutil.Process().memory_info().rss
        outputs = begun(store, slides, out)
        processes = {"client": psutil.Process(), "scheduler": scheduler, "workers": pretenders}
        cpu = {name: cpu_s(process) for name, process in processes.items()}
        started = time.perf_counter()
        tiles = infer(outputs, executor, options)
        wall = time.perf_counter() - started
        cpu = {name: cpu_s(process) - cpu[name] for name, process in processes.items()}
        grown = psutil.Process().memory_info().rss - before
        inside = client.run(seconds_inside, workers=[first])[first]
    # What no cluster can do without; slides are finished while the next part is predicted.
    needed = slides * options.strips * options.batch_s * TILES / options.batch
    cost = {name: spent / len(inside) for name, spent in cpu.items()}
    # Client and scheduler run side by side; busier than half the time, they would be waited for.
    # A part's costs include those of finishing its slides, which for large ones is rare.
    holds = 0.5 * REAL_PART_S / max(cost["client"], cost["scheduler"])
    of = f"{workers} workers"
    return Results(
        {
            f"{of}, idle between parts": Ratio.once(1 - sum(inside) / workers / wall),
            f"{of}, busy with what is needed": Ratio.once(needed / workers / wall),
            f"{of}, tiles predicted / needed": Ratio.once(
                tiles / (slides * options.strips * TILES)
            ),
        },
        {
            f"{of}, slides": slides,
            f"{of}, parts": len(inside),
            f"{of}, seconds": round(wall, 1),
            f"{of}, a part takes, s": round(statistics.mean(inside), 3),
            f"{of}, parts/s": round(len(inside) / wall, 1),
            **{
                f"{of}, {name}, CPU ms a part": round(1000 * spent, 2)
                for name, spent in cost.items()
            },
            **{
                f"{of}, {name}, share of a core": round(spent / wall, 2)
                for name, spent in cpu.items()
            },
            f"{of}, client, kB a slide": round(grown / slides / 1000, 1),
            f"{of}, workers held with parts of {REAL_PART_S:.0f} s": round(holds, -1),
        },
    )


@dataclass(slots=True, eq=False)
class Begun:
    """Output of a slide as the executor knows it; what `SlideOutput` writes is counted apart."""

    store: SlideStore
    plan: SlidePlan
    out: Path
    done: frozenset[int] = frozenset()
    complete: bool = False

    @property
    def final(self) -> Path:
        """Name to be."""
        return self.out / self.store.name

    @property
    def task(self) -> StripTask:
        """Strips that are left."""
        left = frozenset(range(len(self.plan.strips))) - self.done
        return StripTask(self.store, (self.plan,), self.final, left)

    def record(self, records: Sequence[StripRecord]) -> None:
        """Note what is done."""
        self.done |= {one.index for one in records}

    def may_finish(self) -> bool:
        """Whether nothing is left but the end."""
        return len(self.done) == len(self.plan.strips)


def begun(store: SlideStore, count: int, out: Path) -> list[Begun]:
    """Begin outputs of so many slides, all like the same one."""
    plan = plan_slide(store, CARD, InferOptions(overlap=0.0), strip_px=STRIP_PX)
    names = [f"slide{number}" for number in range(count)]
    (out / names[0]).mkdir(parents=True, exist_ok=True)  # workers are asked whether they see it
    return [Begun(replace(store, name=name), replace(plan, slide=name), out) for name in names]


def infer(outputs: list[Begun], executor: DaskExecutor, options: argparse.Namespace) -> int:
    return executor.run(outputs, memory_plan(options.batch), compiled=False).tiles


def memory_plan(batch: int) -> MemoryPlan:
    """Sizes that the fakes are run with; nothing is counted."""
    names = ("sending", "process", "networks", "forward", "bands", "strips", "reading")
    return MemoryPlan(
        batches=(batch,), ahead=2**20, waiting=2**20, strip_px=STRIP_PX, resident=1, cache=2**20,
        readers=2, on_device=False, **dict.fromkeys(names, 0),
    )  # fmt: skip


@contextmanager
def cluster(
    workers: int, options: argparse.Namespace, folder: Path
) -> Iterator[tuple[Client, psutil.Process, psutil.Process]]:
    """Start a scheduler and a process of workers; end them at the end."""
    address = folder / f"scheduler{workers}.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    command += ["--host", "127.0.0.1", "--no-dashboard", "--no-jupyter"]
    command += ["--scheduler-file", address]
    with child(command) as scheduler:
        wait_for(address)
        scheduled = json.loads(address.read_text())["address"]
        command = [sys.executable, "-m", "cluster.workers", scheduled]
        command += ["--strip-s", options.batch_s * TILES / options.batch]
        command += ["--finish-s", options.finish_s]
        with (
            child([*command, "--workers", str(workers)]) as pretenders,
            Client(scheduler_file=str(address)) as client,
        ):
            client.wait_for_workers(workers, timeout=120)
            yield client, psutil.Process(scheduler), psutil.Process(pretenders)


@contextmanager
def child(command: Sequence[object]) -> Iterator[int]:
    """Process id of a child that is ended at the end; it can import what is in this folder."""
    silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(word) for word in command], cwd=HERE, **silence) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists() and path.read_text().endswith("}"):
            return
        time.sleep(0.1)
    raise SystemExit("the scheduler did not start")


def seconds_inside() -> list[float]:
    """Tell how long the parts of a worker's process took."""
    return sys.modules["__main__"].inside


def forget() -> None:
    """Forget the parts that warmed a worker's process up."""
    sys.modules["__main__"].inside.clear()


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
