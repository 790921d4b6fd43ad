"""Owns running a plan on many workers.

Each worker is sent the model once, and writes strips and coarser levels straight into the output;
the journal is written here, as results come in.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import torch
from distributed import (
    Client,
    KilledWorker,
    Status,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from wsi_seg.cores import available_cores, default_readers, share_cores
from wsi_seg.errors import OutputError
from wsi_seg.inference.clusters import connected, require_same_versions, versions_here
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.finish import finish_slide
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
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

# Parts that are with the scheduler at a time; more than any cluster's workers need in a while.
_AT_ONCE = 2048

# Share of the memory that dask allows a worker which a plan may take: dask gives a worker that has
# taken 0.8 of it no more work.
_MEMORY_SHARE = 0.75


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
        place.exception()  # waits for a worker; one that lacks wsi_seg fails here, too
        require_same_versions(client, versions_here())
        self.device: Device = place.result()
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        sharing = max(Counter(one["host"] for one in workers).values(), default=1)
        self._workers = max(1, len(workers))
        memory = _memory_of_each(options.max_ram, sharing, [one["memory_limit"] for one in workers])
        self.options = replace(options, max_ram=memory)
        own = replace(self.options, precision=self.device.precision)
        # Those that join later, or come again after they died, are sent it too.
        self._name = f"wsi-seg-{uuid4().hex}"
        most = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else None
        carrier = _Carrier(_Worker(model, own, load, sharing, most))
        client.register_plugin(carrier, name=self._name)

    def __enter__(self) -> "DaskExecutor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # after an error the scheduler may not answer
            self._client.unregister_worker_plugin(self._name)

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Have one worker choose batch and compilation for all; see `Runner.tune`."""
        self._progress.note("loading the model in a worker")
        found: Tuning = self._client.submit(
            _tune, self._name, plan, dict(unfinished), pure=False
        ).result()
        return found

    def run(
        self, outputs: Sequence[SlideOutput], memory: MemoryPlan, *, compiled: bool
    ) -> RunStats:
        """Produce what is left of slides; see `Executor.run`.

        Raises
        ------
        OutputError
            If workers die at the same strips several times, or the scheduler is gone. A worker
            that dies once is replaced.
        """
        tasks = [output.task for output in outputs]
        parts = list(partition(tasks, workers=self._workers, batch=max(memory.batches)))
        named = {output.plan.slide: output for output in outputs}
        left = {output.plan.slide: set(output.task.strips) for output in outputs}
        total = sum(task.tiles for part in parts for task in part)
        self._progress.start("infer", total, "tiles")
        tiles, drift = 0, PrecisionDrift()
        work = partial(_work, self._name, memory, compiled)
        queue = _TaskQueue(self._client, work, parts)
        for task in tasks:
            if not task.strips:
                queue.finish([named[task.store.name]])
        for done, found in queue:
            if isinstance(done, _Ending):
                for output in done.outputs:
                    output.complete = True
                continue
            stats, records = found
            for task, written in zip(done, records, strict=True):
                named[task.store.name].record(written)
                left[task.store.name] -= task.strips
                self._progress.advance(task.tiles)
            ended = [task.store.name for task in done if not left[task.store.name]]
            queue.finish([named[name] for name in ended])
            tiles += stats.tiles
            drift = PrecisionDrift.largest([drift, stats.drift])
        self._progress.finish()
        return RunStats(tiles, drift, {})  # wait times of workers are not collected


@dataclass(frozen=True)
class _Worker:
    """What a worker needs to know; it loads the model once and keeps it between tasks."""

    model: Model
    options: InferOptions
    load: Load
    sharing: int
    most_threads: int | None = None

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Choose batch and compilation."""
        with _turns().computing:
            return self._runner().tune(plan, unfinished, Silent())

    def work(
        self, memory: MemoryPlan, compiled: bool, part: Part
    ) -> tuple[RunStats, list[list[StripRecord]]]:
        """Produce a part, and write it while it is produced.

        Parts take turns, however many threads the worker has: memory is planned for one. The next
        one is read and predicted while the last strips of this one are written.
        """
        turns, wanted = _turns(), _WhileWanted()
        with StripWriter() as writer:
            strip_jobs, records = [], []
            for task in part:
                written: list[StripRecord] = []
                strip_jobs.append(_written_by(writer, turns.writing, task, written))
                records.append(written)
            with turns.computing:
                wanted.advance(0)
                runner = self._runner()
                if self.options.readers == 0:
                    memory = replace(memory, readers=default_readers())
                stats = runner.produce(strip_jobs, memory, compiled=compiled, progress=wanted)
                writer.drain(but=1)  # what waits to be written is planned for one part, too
        return stats, records

    def _runner(self) -> Runner:
        """Give what predicts, and this worker's cores to it; one thread at a time may ask."""
        share_cores(self.sharing)
        threads = min(available_cores(), get_worker().state.nthreads)
        torch.set_num_threads(min(threads, self.most_threads or threads))
        return _kept(self)


def _written_by(
    writer: StripWriter, turn: Lock, task: StripTask, written: list[StripRecord]
) -> StripJob:
    """Job whose strips the writer writes; their records are for the client."""
    saver = task.saver()

    def write(strip: PendingStrip) -> None:
        with turn:
            written.append(saver.write(strip(), strip_job.quarantined))

    strip_job = StripJob(task, lambda strip: writer.submit(lambda: write(strip)))
    return strip_job


class _Turns:
    """Whose turn it is to compute, and to write, among the parts that a worker has."""

    def __init__(self) -> None:
        self.computing, self.writing = Lock(), Lock()


def _turns() -> _Turns:
    """Give the turns of this worker, the same to all that runs on it."""
    turns: _Turns = get_worker().extensions.setdefault("wsi-seg", _Turns())
    return turns


class _WhileWanted(Silent):
    """Stops a part that nobody waits for any more: its client, or its scheduler, is gone."""

    def __init__(self) -> None:
        self._worker = get_worker()
        self._task = self._worker.state.tasks.get(self._worker.get_current_task())

    def advance(self, amount: float) -> None:
        """Look whether this part is wanted."""
        gone = self._worker.status in (Status.closing, Status.closed)
        if gone or (self._task is not None and self._task.state == "cancelled"):
            raise CancelledError("nobody waits for this part any more")


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
    return _carried(name).work(memory, compiled, part)


def _finish(slides: Sequence[tuple[StripTask, Path]]) -> None:
    for task, final in slides:
        finish_slide(task, final)


@lru_cache(maxsize=1)
def _kept(worker: _Worker) -> Runner:
    return Runner(worker.model, worker.options, worker.load)


def _memory_of_each(max_ram: int | None, sharing: int, limits: Sequence[int]) -> int | None:
    """Bytes for each worker: its share of a machine's, and what dask allows; None is no limit."""
    found = [] if max_ram is None else [max_ram // sharing]
    found += [int(limit * _MEMORY_SHARE) for limit in limits if limit]
    return min(found, default=None)


@dataclass(frozen=True, slots=True)
class _Ending:
    """Slides of which nothing but the end is left: those that one part has completed."""

    outputs: tuple[SlideOutput, ...]


class _TaskQueue:
    """Parts and slides that are with the workers; iterating gives what each of them returned.

    Only some thousand are submitted at a time, so neither the client nor the scheduler ever holds a
    whole run, and workers that join late still get work.
    """

    def __init__(
        self, client: Client, work: Callable[[Part], object], parts: Sequence[Part]
    ) -> None:
        self._client, self._work = client, work
        self._waiting = iter(parts)
        self._submitted: dict[Any, Part | _Ending] = {}  # by dask's futures
        # Of this client, not the default one. Results are fetched while others are looked at: each
        # is a way to the scheduler and on to a worker, and hundreds of workers do not wait for it.
        self._returned = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self._submit(_AT_ONCE)

    def finish(self, outputs: Sequence[SlideOutput]) -> None:
        """Have whole slides finished by a worker, before other work, so that slides get done."""
        ready = tuple(output for output in outputs if output.may_finish())
        if ready:
            slides = [(output.task, output.final) for output in ready]
            future = self._client.submit(_finish, slides, pure=False, priority=1)
            self._keep(future, _Ending(ready))

    def _submit(self, count: int) -> None:
        """Send the next parts, all at once: the scheduler keeps them until a worker is free."""
        parts = list(islice(self._waiting, count))
        if parts:
            futures = self._client.map(self._work, parts, pure=False)
            for future, part in zip(futures, parts, strict=True):
                self._keep(future, part)

    def _keep(self, future: Any, what: Part | _Ending) -> None:  # noqa: ANN401 (dask has no types)
        self._submitted[future] = what
        self._returned.add(future)

    def __iter__(self) -> Iterator[tuple[Part | _Ending, Any]]:
        for future, found in self._returned:
            what = self._submitted.pop(future)
            self._submit(max(0, _AT_ONCE - len(self._submitted)))
            try:
                if future.status != "finished":
                    future.result()  # raises what went wrong
            except KilledWorker as error:
                raise OutputError(_killed(what)) from error
            except CancelledError as error:  # what dask says once its scheduler is gone
                raise OutputError(
                    "the scheduler was lost or restarted; strips that are done are "
                    "kept: repeat the command once it runs again"
                ) from error
            yield what, found


def _killed(what: Part | _Ending) -> str:
    if isinstance(what, _Ending):
        place = f"the coarser levels of slide {what.outputs[0].plan.slide!r}"
    else:
        first, last = what[0], what[-1]
        place = f"slide {first.store.name!r}, strips from {min(first.strips)}"
        place += f" to slide {last.store.name!r}, strip {max(last.strips)}"
    return (
        f"workers died several times on {place}, most often because memory ran out; repeat the "
        "command with fewer workers, or with --max-ram"
    )
