"""Owns the flow: read windows ahead, batch them across slides, predict, accumulate, emit strips."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import batched

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import WsiSegError
from wsi_seg.infer.band import Band, StripSink
from wsi_seg.infer.plan import SlidePlan
from wsi_seg.infer.predictor import TilePredictor
from wsi_seg.infer.source import WindowReader
from wsi_seg.progress import Progress

logger = logging.getLogger(__name__)

# Window that could not be read: first row, first column, reason.
Quarantined = tuple[int, int, str]

# Threads that read and decode windows while the model works.
_READERS = 2


@dataclass(frozen=True, slots=True)
class Flow:
    """Sizes of the stream.

    Parameters
    ----------
    batch
        Tiles per forward pass.
    ahead
        Batches that are being read while one is predicted.
    """

    batch: int
    ahead: int = 2


@dataclass(slots=True, eq=False)
class Job:
    """Strips of one slide to produce.

    Parameters
    ----------
    plan, reader
        What to predict, and where its pixels come from.
    strips
        Indices of the strips to produce.
    sink
        Receives each strip; see `Band`.
    quarantined
        Filled with ``(y, x, reason)`` of windows that could not be read, in output px.
    """

    plan: SlidePlan
    reader: WindowReader
    strips: frozenset[int]
    sink: StripSink
    quarantined: list[Quarantined] = field(default_factory=list)

    def windows(self) -> Iterator["_Window"]:
        """Yield the windows to predict, row by row."""
        for row in self.plan.rows_for(self.strips):
            for column in np.flatnonzero(self.plan.keep[row]):
                yield _Window(self, row, int(column))


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    job: Job
    row: int
    column: int

    def read(self) -> NDArray[np.uint8] | None:
        """Pixels, or None if they cannot be decoded: then the window is left out and reported."""
        try:
            return self.job.reader.read(self.row, self.column)
        except WsiSegError as error:
            plan = self.job.plan
            place = (plan.ys[self.row], plan.xs[self.column])
            self.job.quarantined.append((*place, str(error)))
            logger.warning("%s: tile at y=%d x=%d left out: %s", plan.slide, *place, error)
            return None


def run_jobs(
    jobs: Sequence[Job], predictor: TilePredictor, *, batch: int, progress: Progress
) -> int:
    """Predict all windows of all jobs; return how many were predicted. See `predict_jobs`."""
    return sum(predict_jobs(jobs, predictor, Flow(batch), progress=progress))


def predict_jobs(
    jobs: Sequence[Job], predictor: TilePredictor, flow: Flow, *, progress: Progress
) -> Iterator[int]:
    """Predict all windows of all jobs, one batch at a time.

    Batches are filled across slides. Every batch has the same size, the last one padded, because
    libraries choose kernels by batch size and a px must not depend on what shares its batch.

    Parameters
    ----------
    jobs
        Slides in the order they are produced; all plans have the same ``tile_px``.
    predictor
        The model.
    flow
        Tiles per forward pass, and how many are read ahead.
    progress
        Advanced by windows.

    Yields
    ------
    int
        Windows that the batch predicted; what they complete has gone to the jobs' sinks.
    """
    bands = _Bands(jobs, predictor)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="wsi-read") as pool:
        for windows, reads in _read_ahead(_all_windows(jobs), pool, flow):
            read = [
                (w, tile)
                for w, f in zip(windows, reads, strict=True)
                if (tile := f.result()) is not None
            ]
            if read:
                tiles = np.stack([tile for _, tile in read])
                padding = np.zeros((flow.batch - len(tiles), *tiles.shape[1:]), dtype=np.uint8)
                results = predictor.predict(np.concatenate([tiles, padding]))
                for (window, _), result in zip(read, results, strict=False):
                    bands.of(window.job).add(window.row, window.column, result)
            progress.advance(len(windows))
            yield len(read)
    bands.finish()


def _all_windows(jobs: Iterable[Job]) -> Iterator[_Window]:
    for job in jobs:
        yield from job.windows()


def _read_ahead(
    windows: Iterator[_Window], pool: ThreadPoolExecutor, flow: Flow
) -> Iterator[tuple[tuple[_Window, ...], list[Future[NDArray[np.uint8] | None]]]]:
    """Batches of windows whose pixels are being read, a few batches ahead of the caller."""
    waiting: deque[tuple[tuple[_Window, ...], list[Future[NDArray[np.uint8] | None]]]] = deque()
    for group in batched(windows, flow.batch):
        waiting.append((group, [pool.submit(window.read) for window in group]))
        if len(waiting) > flow.ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


class _Bands:
    """The accumulator of the slide at hand: opened with its first window, closed with its last."""

    def __init__(self, jobs: Sequence[Job], predictor: TilePredictor) -> None:
        self._waiting = deque(jobs)
        self._predictor = predictor
        self._current: tuple[Job, Band] | None = None

    def of(self, job: Job) -> Band:
        while self._current is None or self._current[0] is not job:
            self._next()
        return self._current[1]

    def finish(self) -> None:
        while self._waiting:
            self._next()
        self._close()

    def _next(self) -> None:
        self._close()
        job = self._waiting.popleft()
        band = Band(
            job.plan,
            job.strips,
            channels=self._predictor.channels,
            device=self._predictor.device,
            sink=job.sink,
        )
        self._current = (job, band)

    def _close(self) -> None:
        if self._current is not None:
            self._current[1].finish()
            self._current = None
