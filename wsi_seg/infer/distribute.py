"""Owns running a plan on many workers; the only room of dask.

Tasks are groups of neighbouring strips. Each worker loads the model once and writes its strips
straight into the output; the journal is written here, as results come in. Sums are of whole
numbers, so any number of workers gives the bytes of a run in one process.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import dask
import torch
from distributed import Client, KilledWorker, LocalCluster, as_completed

from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.infer.members import MemberPredictor, MemberPredictors, Model
from wsi_seg.infer.memory import MemoryPlan
from wsi_seg.infer.output import SlideOutput, StripTask
from wsi_seg.infer.plan import InferOptions
from wsi_seg.infer.run import build_predictor
from wsi_seg.infer.stream import Quarantined
from wsi_seg.infer.together import Work, predict_works
from wsi_seg.progress import Progress, Silent

# Tasks for each worker: enough to even out slow ones, few enough that the row of windows that
# neighbouring tasks both predict hardly counts.
_TASKS_PER_WORKER = 4


@contextlib.contextmanager
def connected(cluster: str) -> Iterator[Client]:
    """Connect to a cluster, and start it where it is local.

    Parameters
    ----------
    cluster
        ``local:N`` starts N processes here, ``cuda`` one for each GPU, ``slurm`` submits workers
        as dask-jobqueue is configured, ``tcp://HOST:PORT`` is a scheduler that runs already.

    Raises
    ------
    ConfigError
        If the word is none of these, or a package that it needs is not installed.
    """
    kind, _, count = cluster.partition(":")
    if kind == "local":
        if not count.isdigit() or int(count) < 1:
            raise ConfigError(f"got --cluster {cluster!r}; expected local:N with N of 1 or more")
        with (
            _calm_workers(),
            LocalCluster(
                n_workers=int(count),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
            ) as workers,
            Client(workers) as client,
        ):
            yield client
    elif kind == "cuda":
        with (
            _extra("dask_cuda", "LocalCUDACluster", "cuda", {"dashboard_address": None}) as workers,
            Client(workers) as client,
        ):
            yield client
    elif kind == "slurm":
        # Its workers are other machines, so the scheduler has to listen to them; its page has not.
        page = {"scheduler_options": {"dashboard_address": "127.0.0.1:0"}}
        with _extra("dask_jobqueue", "SLURMCluster", "slurm", page) as workers:
            workers.scale(jobs=1)
            with Client(workers) as client:
                yield client
    elif kind in ("tcp", "tls"):
        try:
            client = Client(cluster, timeout="10s")
        except OSError as error:
            raise ConfigError(f"got --cluster {cluster!r}, but nothing answers there") from error
        with client:
            yield client
    else:
        raise ConfigError(
            f"got --cluster {cluster!r}; expected local:N, cuda, slurm or tcp://HOST:PORT"
        )


@contextlib.contextmanager
def _calm_workers() -> Iterator[None]:
    """Start local workers without what dask does for memory and profiles of other programs.

    It makes malloc give memory back at once, and a network asks for the same memory again with
    every layer; and it looks at every thread's stack a hundred times a second.
    """
    key = "distributed.nanny.pre-spawn-environ"
    environment = {
        name: value
        for name, value in dask.config.get(key).items()
        if name != "MALLOC_TRIM_THRESHOLD_"
    }
    with dask.config.set({key: environment, "distributed.worker.profile.enabled": False}):
        yield


def _extra(module: str, name: str, extra: str, options: Mapping[str, object]) -> Any:  # noqa: ANN401 (dask has no types)
    """Start the cluster class of an optional package."""
    try:
        return getattr(import_module(module), name)(**options)
    except ImportError as error:
        raise ConfigError(
            f"got --cluster {extra}, which needs {module}; pip install 'wsi-seg[{extra}]'"
        ) from error


def run_distributed(
    outputs: Sequence[SlideOutput],
    model: Model,
    options: InferOptions,
    memory: MemoryPlan,
    *,
    client: Client,
    progress: Progress,
) -> int:
    """Produce all strips that are left on the workers of a cluster; return the tiles predicted.

    Parameters
    ----------
    outputs
        Slides that are not complete; their metadata exist.
    model
        Members whose files every worker can read.
    options
        What the plans were made with.
    memory
        Sizes of parts, of each worker.
    client
        From `connected`.
    progress
        Advanced by tiles.

    Raises
    ------
    OutputError
        If workers die at the same strips several times. One that dies once is replaced.
    """
    workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    for output in outputs:
        if not output.task.strips:
            output.finish()
    owners = {}
    for output in outputs:
        for task in split_task(output.task, workers * _TASKS_PER_WORKER):
            future = client.submit(_work, task, model, options, memory, workers, pure=False)
            owners[future] = (output, task)
    progress.start("infer", sum(task.windows for _, task in owners.values()), "tiles")
    tiles = 0
    for future in as_completed(owners):
        output, task = owners[future]
        try:
            predicted, quarantined = future.result()
        except KilledWorker as error:
            raise OutputError(
                f"slide {output.plan.slide!r}: workers died again and again on strips "
                f"{min(task.strips)} to {max(task.strips)}, most often for want of memory; repeat "
                "the command with fewer workers, or with --max-ram"
            ) from error
        output.record(sorted(task.strips), quarantined)
        if not output.task.strips:
            output.finish()
        progress.advance(task.windows)
        tiles += predicted
    progress.finish()
    return tiles


def split_task(task: StripTask, parts: int) -> list[StripTask]:
    """Cut a task into at most ``parts`` groups of neighbouring strips of about equal number."""
    strips = sorted(task.strips)
    size = max(1, -(-len(strips) // parts))
    return [
        replace(task, strips=frozenset(strips[i : i + size])) for i in range(0, len(strips), size)
    ]


def _work(
    task: StripTask, model: Model, options: InferOptions, memory: MemoryPlan, sharing: int
) -> tuple[int, list[Quarantined]]:
    """Produce the strips of one task in a worker; ``sharing`` workers share out the cores."""
    share = max(1, (os.cpu_count() or 1) // sharing)
    torch.set_num_threads(min(share, torch.get_num_threads()))  # OMP_NUM_THREADS may say less
    work = Work(task, task.write)
    predictors = _loaded(model, options, memory.resident)
    predicted = predict_works([work], model, predictors, memory, progress=Silent())
    return predicted, work.quarantined


@lru_cache(maxsize=1)
def _loaded(model: Model, options: InferOptions, resident: int) -> list[MemberPredictor]:
    """Load the model once for each worker; it is kept between tasks."""
    build = partial(build_predictor, options=options)
    return MemberPredictors(model, build, resident=resident).each()
