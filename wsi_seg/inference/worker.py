"""Owns what runs on a worker of a dask cluster: computing parts, and finishing slides.

A worker computes one part at a time, and writes the last strip of a part during the next one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any

import torch
from distributed import Status, WorkerPlugin, get_worker, secede

from wsi_seg.cores import available_cores, default_readers, share_cores
from wsi_seg.files.object_folder import Objects
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.finish import finish_slide
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.part_reports import Report, part_key
from wsi_seg.inference.parts import Part
from wsi_seg.inference.run_plan import RunPlan
from wsi_seg.inference.runner import Load, Runner, RunStats, Tuning, UnfinishedSettings
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.strips import PendingStrip
from wsi_seg.inference.task import StripTask, StripWriter
from wsi_seg.inference.transfer import Budget
from wsi_seg.predict.ensemble import Model
from wsi_seg.predict.predictor import PrecisionDrift
from wsi_seg.progress import Silent

# Share of a part that is left when dask sends the next one. With hundreds of workers that end parts
# at the same time, the scheduler takes seconds.
_ENDING = 0.25


@dataclass(frozen=True)
class Worker:
    """The code and data of a run on a worker, which loads the model once and caches it.

    Parameters
    ----------
    name
        Name of the run: of the worker plugin, and of the topic of reports.
    model, options, load
        See `DaskExecutor`.
    sharing
        Largest number of workers on one machine.
    every
        Seconds between two reports.
    """

    name: str
    model: Model
    options: InferOptions
    load: Load
    sharing: int
    every: float

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Choose the batch size, and whether to compile."""
        turns = _turns()
        return turns.compute(lambda: self._runner(turns).tune(plan, unfinished, Silent()))

    def work(
        self, memory: MemoryPlan, compiled: bool, part: Part
    ) -> tuple[RunStats, list[list[StripRecord]]]:
        """Predict a part, and write its strips meanwhile.

        Parts are predicted one at a time, however many threads the worker has, because memory is
        planned for one. The next part starts while the last strip of this one is written. dask
        sends it when little of this one is left: early enough to arrive in time, but not so early
        that it waits here while another worker has nothing to do.
        """
        turns, progress = _turns(), _Reporting(self.name, part, self.every)
        with StripWriter(turns.sending(memory.sending)) as writer:
            strip_jobs, records = [], []
            for task in part:
                written: list[StripRecord] = []
                job = _written_by(writer, turns.writing, task, written, progress)
                strip_jobs.append(job)
                records.append(written)

            def produce() -> RunStats:
                progress.advance(0)
                runner = self._runner(turns)
                readers = self.options.readers or default_readers()
                sizes = replace(memory, readers=readers)
                stats = runner.produce(strip_jobs, sizes, compiled=compiled, progress=progress)
                writer.drain(but=1)  # memory for waiting strips is planned for one part too
                return stats

            stats = turns.compute_part(produce, progress.is_ending)
        return stats, records

    def _runner(self, turns: "_Turns") -> Runner:
        """Set the number of torch's threads, and return the runner of this worker."""
        share_cores(self.sharing)
        # The computing thread uses as many cores as dask has threads; one is the default.
        threads = turns.threads if turns.threads > 1 else torch.get_num_threads()
        torch.set_num_threads(min(available_cores(), threads))
        return _kept(self)


def _written_by(
    writer: StripWriter,
    turn: Lock,
    task: StripTask,
    written: list[StripRecord],
    progress: "_Reporting",
) -> StripJob:
    """Return a job whose strips the writer writes; ``written`` receives their records."""
    saver = task.saver()

    def write(strip: PendingStrip, objects: Objects) -> Callable[[], None]:
        with turn:
            found = saver.write(strip(), strip_job.quarantined, objects)

        def record() -> None:
            written.append(found)
            progress.wrote(task.store.name, found)

        return record

    strip_job = StripJob(task, lambda strip: writer.submit(partial(write, strip)))
    return strip_job


class _Turns:
    """Serializes the computation, and the writing, of a worker's parts.

    All computation runs in one thread, because malloc reuses freed memory within a thread.

    Parameters
    ----------
    threads
        Number of dask's threads in this worker.
    """

    def __init__(self, threads: int) -> None:
        self.threads, self.writing = threads, Lock()
        self._finishing = Lock()
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="wsi-compute")
        self._sending: dict[int, Budget] = {}

    def compute[T](self, work: Callable[[], T]) -> T:
        """Run work in the computing thread, after earlier work."""
        return self._computing.submit(work).result()

    def compute_part[T](self, work: Callable[[], T], is_ending: Event) -> T:
        """Run work in the computing thread; let dask send more once ``is_ending`` is set."""
        computing = self._computing.submit(work)
        computing.add_done_callback(lambda _: is_ending.set())
        is_ending.wait()
        secede()
        return computing.result()

    def sending(self, limit: int) -> Budget:
        """Return the budget of bytes on their way to an object store, which all parts share."""
        return self._sending.setdefault(limit, Budget(limit))

    @contextmanager
    def finishing(self) -> Iterator[bool]:
        """Yield whether no other task of this worker is finishing slides."""
        is_first = self._finishing.acquire(blocking=False)
        try:
            yield is_first
        finally:
            if is_first:
                self._finishing.release()


def _turns() -> _Turns:
    """Return the turns of this worker, shared by all its tasks."""
    worker = get_worker()
    own = _Turns(worker.state.nthreads)
    turns: _Turns = worker.extensions.setdefault("wsi-seg", own)
    return turns


class _Cancelled(Exception):
    """The part was cancelled, because its client or scheduler is gone."""


class _Reporting(Silent):
    """Reports the progress of a part from time to time, and stops it if it was cancelled.

    ``is_ending`` is set when at most `_ENDING` of its tiles are left.
    """

    def __init__(self, topic: str, part: Part, every: float) -> None:
        self._topic, self._part, self._every = topic, part_key(part), every
        self._worker = get_worker()
        self._task = self._worker.state.tasks.get(self._worker.get_current_task())
        self._tiles, self._reported = 0.0, time.monotonic()
        self.is_ending = Event()
        self._ending = (1 - _ENDING) * sum(task.tiles for task in part)
        self._written: SimpleQueue[tuple[str, dict[str, object]]] = SimpleQueue()

    def wrote(self, slide: str, record: StripRecord) -> None:
        """Include a strip that is on disk in the next report."""
        self._written.put((slide, record.to_json()))

    def advance(self, amount: float) -> None:
        """Raise if the part was cancelled, and report if it is time."""
        gone = self._worker.status in (Status.closing, Status.closed)
        if gone or (self._task is not None and self._task.state == "cancelled"):
            raise _Cancelled
        self._tiles += amount
        if self._tiles >= self._ending:
            self.is_ending.set()
        if time.monotonic() - self._reported >= self._every:
            self._reported = time.monotonic()
            written = [self._written.get() for _ in range(self._written.qsize())]
            report: Report = (*self._part, self._tiles, written)
            self._worker.log_event(self._topic, report)


class Carrier(WorkerPlugin):
    """Carries `Worker` to the workers; dask sends it to each of them once."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker


def _carried(name: str) -> Worker:
    carrier: Any = get_worker().plugins[name]
    worker: Worker = carrier.worker
    return worker


def tune_model(name: str, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
    """Choose the batch size and compilation on this worker; see `Worker.tune`."""
    return _carried(name).tune(plan, unfinished)


def predict_part(
    name: str, memory: MemoryPlan, compiled: bool, part: Part
) -> tuple[RunStats, list[list[StripRecord]]]:
    """Predict a part on this worker; see `Worker.work`."""
    try:
        return _carried(name).work(memory, compiled, part)
    except _Cancelled:
        return RunStats(0, PrecisionDrift(), {}), []  # discarded


def finish_slides(slides: Sequence[tuple[StripTask, Path]]) -> None:
    """Finish slides while the next part is computed, unless this worker finishes others already."""
    with _turns().finishing() as is_first:
        if is_first:
            secede()
        for task, final in slides:
            finish_slide(task, final)


@lru_cache(maxsize=1)
def _kept(worker: Worker) -> Runner:
    return Runner(worker.model, worker.options, worker.load)
