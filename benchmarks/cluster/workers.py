"""Dask workers that only pretend: readers and networks sleep, nothing is written.

Started by ``bench_cluster.py``. All workers live in this one process, one thread each; tasks go
through the real stream, and only what it reads, predicts and writes is replaced.
"""

import argparse
import asyncio
import time

import numpy as np
import torch
from distributed import Worker

from wsi_seg.infer import distribute, output
from wsi_seg.infer.output import SlideOutput
from wsi_seg.infer.source import WindowReader
from wsi_seg.infer.windows import PROBABILITY_STEPS

# Seconds inside tasks, of all workers; asked for by the client.
inside: list[float] = []


class SleepingPredictor:
    """Takes a given time for a batch, whatever it holds."""

    channels = 1
    device = torch.device("cpu")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, tiles: np.ndarray) -> torch.Tensor:
        """Half a probability everywhere, ``(B, 1, T, T)``."""
        time.sleep(self.seconds)
        shape = (len(tiles), 1, *tiles.shape[1:3])
        return torch.full(shape, PROBABILITY_STEPS // 2, dtype=torch.int32)


def pretend(options: argparse.Namespace) -> None:
    """Replace what costs time on a real worker by given latencies."""
    predictors = [SleepingPredictor(options.batch_s)]

    def read(reader: WindowReader, row: int, column: int) -> np.ndarray:
        time.sleep(options.read_s)
        return np.zeros((options.tile, options.tile, 3), np.uint8)

    WindowReader.read = read
    SlideOutput.finish = lambda _: time.sleep(options.finish_s)
    output.write_strip = lambda *_: None
    distribute._loaded = lambda *_: predictors
    for name in ("_work", "_finish"):
        if hasattr(distribute, name):
            setattr(distribute, name, timed(getattr(distribute, name)))


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
    parser.add_argument("--tile", type=int, required=True)
    parser.add_argument("--read-s", type=float, required=True)
    parser.add_argument("--batch-s", type=float, required=True)
    parser.add_argument("--finish-s", type=float, required=True)
    options = parser.parse_args()
    pretend(options)
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
