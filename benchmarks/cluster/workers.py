"""Dask workers that only pretend: readers and networks sleep, nothing is written.

Started by ``bench_cluster.py``. All workers live in this one process, one thread each; tasks go
through the real stream, and only what it reads and writes is replaced; the network comes with them.
"""

import argparse
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from distributed import Worker

from wsi_seg.inference import distribute, source
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.save import StripRecord, StripSaver

# Seconds inside tasks, of all workers; asked for by the client.
inside: list[float] = []


def pretend(options: argparse.Namespace) -> None:
    """Replace what costs time on a real worker by given latencies."""
    # Real workers have threads of their own to read with.
    readers = ThreadPoolExecutor(2 * options.workers)
    source.shared_pool = lambda: readers
    source.SourceRows.read = lambda *_: time.sleep(options.read_s)
    StripSaver.__init__ = lambda *_, **__: None  # nor is there a group to write to
    StripSaver.write = lambda _, strip, *__: StripRecord(strip.index)
    SlideOutput.finish = lambda _: time.sleep(options.finish_s)
    distribute._Worker.work = timed(distribute._Worker.work)
    distribute._finish = timed(distribute._finish)


def timed(work: object) -> object:
    """Note how long each task takes."""

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
    parser.add_argument("--read-s", type=float, required=True)
    parser.add_argument("--finish-s", type=float, required=True)
    options = parser.parse_args()
    pretend(options)
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
