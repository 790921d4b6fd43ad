"""Owns the execution of a plan on the workers of a dask cluster.

Each worker receives the model once, and writes strips and coarser levels directly to the output.
The client writes the journal as results arrive.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from uuid import uuid4

from distributed import (
    Client,
    KilledWorker,
)

from wsi_seg.inference.clusters import (
    connected,
    require_same_files,
    require_same_versions,
    versions_here,
)
from wsi_seg.inference.memory import LIMIT_SHARE, MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.part_queue import Ending, PartQueue, lost
from wsi_seg.inference.part_reports import PartReports
from wsi_seg.inference.parts import partition
from wsi_seg.inference.run_plan import RunPlan
from wsi_seg.inference.runner import (
    Load,
    RunStats,
    Tuning,
    UnfinishedSettings,
    load_network,
)
from wsi_seg.inference.worker import Carrier, Worker, finish_slides, predict_part, tune_model
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
        self._at_a_time = max(1, sum(one["nthreads"] for one in workers))
        memory = _memory_of_each(options.max_ram, sharing, [one["memory_limit"] for one in workers])
        self.options = replace(options, max_ram=memory)
        own = replace(self.options, precision=self.device.precision)
        # A plugin also reaches workers that join later or restart.
        self._name = f"wsi-seg-{uuid4().hex}"
        every = max(1.0, len(workers) * _REPORT_INTERVAL)
        worker = Worker(self._name, model, own, load, sharing, every)
        client.register_plugin(Carrier(worker), name=self._name)

    def __enter__(self) -> "DaskExecutor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # after an error the scheduler may not answer
            self._client.unregister_worker_plugin(self._name)

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Let one worker choose the batch size and compilation for all; see `Runner.tune`."""
        self._progress.note("loading the model in a worker")
        tuning = self._client.submit(tune_model, self._name, plan, dict(unfinished), pure=False)
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
        work = partial(predict_part, self._name, memory, compiled)
        with PartReports(self._client, self._name, outputs, self._progress) as reports:
            queue = PartQueue(self._client, work, finish_slides, parts)
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


def _memory_of_each(max_ram: int | None, sharing: int, limits: Sequence[int]) -> int | None:
    """Limit of each worker in bytes: its share of a machine and of dask's limit; None for none."""
    found = [] if max_ram is None else [max_ram // sharing]
    found += [int(limit * LIMIT_SHARE) for limit in limits if limit]
    return min(found, default=None)
