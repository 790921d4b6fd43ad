"""Owns running a plan on many workers.

Each worker is sent the model once, and writes strips and coarser levels straight into the output;
the journal is written here, as results come in.
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

# Seconds between two reports of a worker, for each worker: the scheduler passes on 50 a second.
_TELL = 1 / 50


class DaskExecutor:
    """Produces strips on the workers of a cluster.

    One of them is asked where it computes, for this machine may have no GPU; all then compute so,
    because workers of several kinds must not choose differently. Leaving the context takes from
    workers what they needed to know.

    Parameters
    ----------
    client
        From `connected`.
    model, options
        What predicts, and how; every worker must see the model's files. ``max_ram`` is for all
        workers of a machine together.
    progress
        Advanced by tiles.
    load
        See `Runner`; travels to the workers.

    Attributes
    ----------
    options
        As they are for each worker: with its share of memory.

    Raises
    ------
    ConfigError
        If the worker has no such device, or workers have other versions of what matters.
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
        # Waits for a worker; one that lacks wsi_seg fails here, too.
        if not isinstance(place.exception(), KilledWorker):
            require_same_versions(client, versions_here())
            files = [member.path for member in model.members if member.path is not None]
            require_same_files(client, files)
        with lost("wsi_seg and torch"):
            self.device: Device = place.result()
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        sharing = max(Counter(one["host"] for one in workers).values(), default=1)
        # A worker with many threads is given as many parts at a time, of which it computes one.
        threads = [one["nthreads"] for one in workers]
        self._at_a_time = max(1, sum(1 if one <= THREADS else one for one in threads))
        memory = _memory_of_each(options.max_ram, sharing, [one["memory_limit"] for one in workers])
        self.options = replace(options, max_ram=memory)
        own = replace(self.options, precision=self.device.precision)
        # Those that join later, or come again after they died, are sent it too.
        self._name = f"wsi-seg-{uuid4().hex}"
        every = max(1.0, len(workers) * _TELL)
        worker = _Worker(self._name, model, own, load, sharing, every)
        client.register_plugin(_Carrier(worker), name=self._name)

    def __enter__(self) -> "DaskExecutor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # after an error the scheduler may not answer
            self._client.unregister_worker_plugin(self._name)

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Have one worker choose batch and compilation for all; see `Runner.tune`."""
        self._progress.note("loading the model in a worker")
        tuning = self._client.submit(_tune, self._name, plan, dict(unfinished), pure=False)
        with lost("the model"):
            found: Tuning = tuning.result()
        return found

    def run(
        self, outputs: Sequence[SlideOutput], memory: MemoryPlan, *, compiled: bool
    ) -> RunStats:
        """Produce what is left of slides; see `Executor.run`.

        Raises
        ------
        ConfigError
            If a worker does not see a slide, or the output.
        OutputError
            If workers die at the same strips several times, or the scheduler is gone. A worker
            that dies once is replaced.
        """
        tasks = [output.task for output in outputs]
        # Of these no other process can finish the slide, which renames it.
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
    """What a worker needs to know; it loads the model once and keeps it between tasks.

    Parameters
    ----------
    name
        Of the run, by which workers find this, and on which they report.
    model, options, load
        See `DaskExecutor`.
    sharing
        Workers on one machine.
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
        """Choose batch and compilation."""
        turns = _turns()
        return turns.compute(lambda: self._runner(turns).tune(plan, unfinished, Silent()))

    def work(
        self, memory: MemoryPlan, compiled: bool, part: Part
    ) -> tuple[RunStats, list[list[StripRecord]]]:
        """Produce a part, and write it while it is produced.

        Parts take turns, however many threads the worker has: memory is planned for one. The next
        one is read and predicted while the last strips of this one are written.
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
                writer.drain(but=1)  # what waits to be written is planned for one part, too
                return stats

            stats = turns.compute(produce)
        return stats, records

    def _runner(self, turns: "_Turns") -> Runner:
        """Give what predicts, and this worker's cores to it."""
        share_cores(self.sharing)
        threads = turns.threads
        if threads <= THREADS:  # of many, one computes: then it has the cores of all
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
    """Job whose strips the writer writes; their records are for the client."""
    saver = task.saver()

    def write(strip: PendingStrip) -> None:
        with turn:
            record = saver.write(strip(), strip_job.quarantined)
        written.append(record)
        progress.wrote(task.store.name, record)

    strip_job = StripJob(task, lambda strip: writer.submit(lambda: write(strip)))
    return strip_job


class _Turns:
    """Lets the parts that a worker has compute one after the other, and write so.

    All compute in one thread: malloc keeps what a network frees for the thread that freed it.

    Parameters
    ----------
    threads
        That dask may use in this worker.
    """

    def __init__(self, threads: int) -> None:
        self.threads, self.writing = threads, Lock()
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="wsi-compute")

    def compute[T](self, work: Callable[[], T]) -> T:
        """Do work when it is its turn."""
        return self._computing.submit(work).result()


def _turns() -> _Turns:
    """Give the turns of this worker, the same to all that runs on it."""
    worker = get_worker()
    own = _Turns(worker.state.nthreads)
    turns: _Turns = worker.extensions.setdefault("wsi-seg", own)
    return turns


class _NotWanted(Exception):
    """Nobody waits for a part any more: its client, or its scheduler, is gone."""


class _Reporting(Silent):
    """Says from time to time how far a part is, and stops it where it is not wanted any more."""

    def __init__(self, topic: str, part: Part, every: float) -> None:
        self._topic, self._part, self._every = topic, part_key(part), every
        self._worker = get_worker()
        self._task = self._worker.state.tasks.get(self._worker.get_current_task())
        self._tiles, self._said = 0.0, time.monotonic()
        self._written: SimpleQueue[tuple[str, dict[str, object]]] = SimpleQueue()

    def wrote(self, slide: str, record: StripRecord) -> None:
        """Say of a strip that it is on disk, with the next report."""
        self._written.put((slide, record.to_json()))

    def advance(self, amount: float) -> None:
        """Look whether this part is wanted, and report if it is time."""
        gone = self._worker.status in (Status.closing, Status.closed)
        if gone or (self._task is not None and self._task.state == "cancelled"):
            raise _NotWanted
        self._tiles += amount
        if time.monotonic() - self._said >= self._every:
            self._said = time.monotonic()
            written = [self._written.get() for _ in range(self._written.qsize())]
            report: Report = (*self._part, self._tiles, written)
            self._worker.log_event(self._topic, report)


class _Carrier(WorkerPlugin):
    """Brings what a worker needs to know; dask sends it to each worker once."""

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
    except _NotWanted:
        return RunStats(0, PrecisionDrift(), {}), []  # nobody looks at it


def _finish(slides: Sequence[tuple[StripTask, Path]]) -> None:
    for task, final in slides:
        finish_slide(task, final)


@lru_cache(maxsize=1)
def _kept(worker: _Worker) -> Runner:
    return Runner(worker.model, worker.options, worker.load)


def _memory_of_each(max_ram: int | None, sharing: int, limits: Sequence[int]) -> int | None:
    """Bytes for each worker: its share of a machine's, and what dask allows; None is no limit."""
    found = [] if max_ram is None else [max_ram // sharing]
    found += [int(limit * LIMIT_SHARE) for limit in limits if limit]
    return min(found, default=None)
