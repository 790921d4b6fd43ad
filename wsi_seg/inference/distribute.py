"""Owns the execution of a plan on the workers of a dask cluster.

Each worker receives the model once, and writes strips and coarser levels directly to the output.
The client writes the journal as results arrive.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any
from uuid import uuid4

import torch
from distributed import (
    Client,
    KilledWorker,
    Status,
    WorkerPlugin,
    get_worker,
)

from wsi_seg.cores import available_cores, default_readers, share_cores
from wsi_seg.inference.clusters import (
    THREADS,
    connected,
    require_same_files,
    require_same_versions,
    versions_here,
)
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.finish import finish_slide
from wsi_seg.inference.memory import LIMIT_SHARE, MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.part_queue import Ending, PartQueue, lost
from wsi_seg.inference.part_reports import PartReports, Report, part_key
from wsi_seg.inference.parts import Part, partition
from wsi_seg.inference.run_plan import RunPlan
from wsi_seg.inference.runner import (
    Load,
    Runner,
    RunStats,
    Tuning,
    UnfinishedSettings,
    load_network,
)
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.strips import PendingStrip
from wsi_seg.inference.task import StripTask, StripWriter
from wsi_seg.predict.device import Device
from wsi_seg.predict.ensemble import Model
from wsi_seg.predict.predictor import PrecisionDrift
from wsi_seg.progress import Progress, Silent

__all__ = ["DaskExecutor", "connected"]

# Seconds between two reports of a worker, per worker: the scheduler forwards 50 a second.
_REPORT_INTERVAL = 1 / 50


class DaskExecutor:
    """Predicts strips on the workers of a cluster.

    One worker chooses the device and precision for all, because this machine may have no GPU and
    different workers must not choose differently. Leaving the context removes the model from the
    workers.

    Parameters
    ----------
    client
        Client from `connected`.
    model, options
        Model, whose files every worker must see, and options. ``max_ram`` is the limit for all
        workers of a machine together.
    progress
        Advanced by the number of tiles.
    load
        See `Runner`; must be picklable.

    Attributes
    ----------
    options
        Options of each worker, with its share of memory.

    Raises
    ------
    ConfigError
        If the worker has no such device, or the versions of libraries differ.
    """

    def __init__(
        self,
        client: Client,
        model: Model,
        options: InferOptions,
        *,
        progress: Progress = Silent(),  # noqa: B008 (has no state)
        load: Load = load_network,
    ) -> None:
        self._client, self._progress = client, progress
        progress.note("waiting for a worker")
        place = client.submit(Device.here, options.device, options.precision, pure=False)
        # Waits for a worker; fails if wsi_seg is not installed there.
        if not isinstance(place.exception(), KilledWorker):
            require_same_versions(client, versions_here())
            files = [member.path for member in model.members if member.path is not None]
            require_same_files(client, files)
        with lost("wsi_seg and torch"):
            self.device: Device = place.result()
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        sharing = max(Counter(one["host"] for one in workers).values(), default=1)
        # A worker with many threads gets as many parts at a time, but computes only one.
        threads = [one["nthreads"] for one in workers]
        self._at_a_time = max(1, sum(1 if one <= THREADS else one for one in threads))
        memory = _memory_of_each(options.max_ram, sharing, [one["memory_limit"] for one in workers])
        self.options = replace(options, max_ram=memory)
        own = replace(self.options, precision=self.device.precision)
        # A plugin also reaches workers that join later or restart.
        self._name = f"wsi-seg-{uuid4().hex}"
        every = max(1.0, len(workers) * _REPORT_INTERVAL)
        worker = _Worker(self._name, model, own, load, sharing, every)
        client.register_plugin(_Carrier(worker), name=self._name)

    def __enter__(self) -> "DaskExecutor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # after an error the scheduler may not answer
            self._client.unregister_worker_plugin(self._name)

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Let one worker choose the batch size and compilation for all; see `Runner.tune`."""
        self._progress.note("loading the model in a worker")
        tuning = self._client.submit(_tune, self._name, plan, dict(unfinished), pure=False)
        with lost("the model"):
            found: Tuning = tuning.result()
        return found

    def run(
        self, outputs: Sequence[SlideOutput], memory: MemoryPlan, *, compiled: bool
    ) -> RunStats:
        """Predict the remaining strips of slides; see `Executor.run`.

        Raises
        ------
        ConfigError
            If a worker does not see a slide or the output.
        OutputError
            If workers die several times on the same strips, or the scheduler is lost. A worker
            that dies once is replaced.
        """
        tasks = [output.task for output in outputs]
        # Slides with strips left are not finished, and renamed, by another process meanwhile.
        ours = [output for output in outputs if output.task.strips][:1]
        seen = [path for output in ours for path in (output.task.target, output.store.path)]
        require_same_files(self._client, seen)
        parts = list(partition(tasks, workers=self._at_a_time, batch=max(memory.batches)))
        total = sum(task.tiles for part in parts for task in part)
        self._progress.start("infer", total, "tiles")
        tiles, drift = 0, PrecisionDrift()
        work = partial(_work, self._name, memory, compiled)
        with PartReports(self._client, self._name, outputs, self._progress) as reports:
            queue = PartQueue(self._client, work, _finish, parts)
            queue.finish([output for output in outputs if not output.task.strips])
            for done, found in queue:
                if isinstance(done, Ending):
                    for output in done.outputs:
                        output.complete = True
                    continue
                stats, records = found
                queue.finish(reports.done(done, records))
                tiles += stats.tiles
                drift = PrecisionDrift.largest([drift, stats.drift])
        self._progress.finish()
        return RunStats(tiles, drift, {})  # wait times of workers are not collected


@dataclass(frozen=True)
class _Worker:
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
        planned for one. The next part starts while the last strip of this one is written.
        """
        turns, progress = _turns(), _Reporting(self.name, part, self.every)
        with StripWriter() as writer:
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

            stats = turns.compute(produce)
        return stats, records

    def _runner(self, turns: "_Turns") -> Runner:
        """Set the number of torch's threads, and return the runner of this worker."""
        share_cores(self.sharing)
        threads = turns.threads
        if threads <= THREADS:  # the default; with more, the computing thread uses as many cores
            threads = torch.get_num_threads()
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

    def write(strip: PendingStrip) -> None:
        with turn:
            record = saver.write(strip(), strip_job.quarantined)
        written.append(record)
        progress.wrote(task.store.name, record)

    strip_job = StripJob(task, lambda strip: writer.submit(lambda: write(strip)))
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
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="wsi-compute")

    def compute[T](self, work: Callable[[], T]) -> T:
        """Run work in the computing thread, after earlier work."""
        return self._computing.submit(work).result()


def _turns() -> _Turns:
    """Return the turns of this worker, shared by all its tasks."""
    worker = get_worker()
    own = _Turns(worker.state.nthreads)
    turns: _Turns = worker.extensions.setdefault("wsi-seg", own)
    return turns


class _Cancelled(Exception):
    """The part was cancelled, because its client or scheduler is gone."""


class _Reporting(Silent):
    """Reports the progress of a part from time to time, and stops it if it was cancelled."""

    def __init__(self, topic: str, part: Part, every: float) -> None:
        self._topic, self._part, self._every = topic, part_key(part), every
        self._worker = get_worker()
        self._task = self._worker.state.tasks.get(self._worker.get_current_task())
        self._tiles, self._reported = 0.0, time.monotonic()
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
        if time.monotonic() - self._reported >= self._every:
            self._reported = time.monotonic()
            written = [self._written.get() for _ in range(self._written.qsize())]
            report: Report = (*self._part, self._tiles, written)
            self._worker.log_event(self._topic, report)


class _Carrier(WorkerPlugin):
    """Carries `_Worker` to the workers; dask sends it to each of them once."""

    def __init__(self, worker: _Worker) -> None:
        self.worker = worker


def _carried(name: str) -> _Worker:
    carrier: Any = get_worker().plugins[name]
    worker: _Worker = carrier.worker
    return worker


def _tune(name: str, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
    return _carried(name).tune(plan, unfinished)


def _work(
    name: str, memory: MemoryPlan, compiled: bool, part: Part
) -> tuple[RunStats, list[list[StripRecord]]]:
    try:
        return _carried(name).work(memory, compiled, part)
    except _Cancelled:
        return RunStats(0, PrecisionDrift(), {}), []  # discarded


def _finish(slides: Sequence[tuple[StripTask, Path]]) -> None:
    for task, final in slides:
        finish_slide(task, final)


@lru_cache(maxsize=1)
def _kept(worker: _Worker) -> Runner:
    return Runner(worker.model, worker.options, worker.load)


def _memory_of_each(max_ram: int | None, sharing: int, limits: Sequence[int]) -> int | None:
    """Limit of each worker in bytes: its share of a machine and of dask's limit; None for none."""
    found = [] if max_ram is None else [max_ram // sharing]
    found += [int(limit * LIMIT_SHARE) for limit in limits if limit]
    return min(found, default=None)
