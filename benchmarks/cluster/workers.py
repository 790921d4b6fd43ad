"""Dask workers that only pretend: they sleep for as long as work would take.

Started by ``bench_cluster.py``. All workers live in this one process, one thread each.
"""

import argparse
import asyncio
import time
from functools import cache
from importlib import metadata

import dask
from distributed import Worker

from wsi_seg.inference import worker
from wsi_seg.inference.parts import Part
from wsi_seg.inference.runner import RunStats
from wsi_seg.inference.save import StripRecord
from wsi_seg.predict.predictor import PrecisionDrift

# Seconds inside parts, of all workers; asked for by the client.
inside: list[float] = []

# Each worker measures itself by default, fifty times a second and more: hundreds in one process
# have no time for anything else then.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "10s",
}


def pretend(options: argparse.Namespace) -> None:
    """Replace what costs time on a real worker by sleep, and say versions without looking again."""
    metadata.version = cache(metadata.version)

    def work(self: worker.Worker, _: object, __: bool, part: Part) -> object:
        turns, progress = worker._turns(), worker._Reporting(self.name, part, self.every)
        records = [[StripRecord(index) for index in sorted(task.strips)] for task in part]

        def produce() -> RunStats:
            for task, written in zip(part, records, strict=True):
                for _ in written:
                    time.sleep(options.strip_s)
                    progress.advance(task.tiles / len(written))
            return RunStats(sum(task.tiles for task in part), PrecisionDrift(), {})

        return turns.compute_part(timed(produce), progress.is_ending), records

    worker.Worker.work = work
    worker.finish_slide = lambda *_: time.sleep(options.finish_s)


def timed(work: object) -> object:
    """Note how long each part takes."""

    def run(*arguments: object) -> object:
        started = time.perf_counter()
        try:
            return work(*arguments)
        finally:
            inside.append(time.perf_counter() - started)

    return run


async def serve(options: argparse.Namespace) -> None:
    workers = [
        Worker(options.scheduler, nthreads=1, name=f"w{n}", memory_limit=0, dashboard=False)
        for n in range(options.workers)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheduler")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--strip-s", type=float, required=True)
    parser.add_argument("--finish-s", type=float, required=True)
    options = parser.parse_args()
    pretend(options)
    with dask.config.set(QUIET):
        asyncio.run(serve(options))


if __name__ == "__main__":
    main()
