"""Owns running a plan on many workers; the only room of dask.

Each worker loads the model once, writes the strips of its parts straight into the output, and
makes the coarser levels of slides; the journal is written here, as results come in. Sums are of
whole numbers, so any number of workers gives the bytes of a run in one process.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib import import_module
from itertools import islice
from typing import Any

import dask
import torch
from distributed import Client, KilledWorker, LocalCluster, as_completed

from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.infer.members import MemberPredictor, MemberPredictors, Model
from wsi_seg.infer.memory import MemoryPlan
from wsi_seg.infer.output import SlideOutput
from wsi_seg.infer.plan import InferOptions
from wsi_seg.infer.predictor import Change, place_here
from wsi_seg.infer.run import Produced, Workers, build_predictor, first_change
from wsi_seg.infer.share import Part, shared_out
from wsi_seg.infer.stream import Quarantined
from wsi_seg.infer.together import Work, predict_works
from wsi_seg.progress import Progress, Silent

# Slides that are looked at for a tile to compare precisions on.
_COMPARED = 8

# Parts that are with the scheduler at a time; more than any cluster's workers need in a while.
_AT_ONCE = 2048


@contextlib.contextmanager
def connected(cluster: str) -> Iterator[Client]:
    """Connect to a cluster, and start it where it is local.

    Parameters
    ----------
    cluster
        ``local:N`` starts N processes here, ``cuda`` one for each GPU (``cuda:N`` for N of them),
        ``slurm:N`` submits N jobs as dask-jobqueue is configured (``slurm`` one),
        ``tcp://HOST:PORT`` is a scheduler that runs already.

    Raises
    ------
    ConfigError
        If the word is none of these, or a package that it needs is not installed.
    """
    kind, _, word = cluster.partition(":")
    if kind == "local":
        with (
            _calm_workers(),
            LocalCluster(
                n_workers=_count(cluster, word),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                # Even so it serves figures: at a port of its own, or a second cluster complains.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            ) as workers,
            Client(workers) as client,
        ):
            yield client
    elif kind == "cuda":
        gpus = {"n_workers": _count(cluster, word)} if word else {}
        how = {"dashboard_address": None, **gpus}
        with (
            _extra("dask_cuda", "LocalCUDACluster", "cuda", how) as workers,
            Client(workers) as client,
        ):
            yield client
    elif kind == "slurm":
        # Its workers are other machines, so the scheduler has to listen to them; its page has not.
        page = {"scheduler_options": {"dashboard_address": "127.0.0.1:0"}}
        with _extra("dask_jobqueue", "SLURMCluster", "slurm", page) as workers:
            workers.scale(jobs=_count(cluster, word) if word else 1)
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
            f"got --cluster {cluster!r}; expected local:N, cuda[:N], slurm[:N] or tcp://HOST:PORT"
        )


def _count(cluster: str, word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ConfigError(
            f"got --cluster {cluster!r}; expected a number of 1 or more after the colon"
        )
    return int(word)


@contextlib.contextmanager
def _calm_workers() -> Iterator[None]:
    """Start local workers without what dask does for memory and profiles of other programs.

    It makes malloc give memory back at once, and a network asks for the same memory again with
    every layer; it looks at every thread's stack a hundred times a second, and every process
    wakes fifty times a second to see whether it still does.
    """
    key = "distributed.nanny.pre-spawn-environ"
    environment = {
        name: value
        for name, value in dask.config.get(key).items()
        if name != "MALLOC_TRIM_THRESHOLD_"
    }
    calm = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
    with dask.config.set({key: environment, **calm}):
        yield


def _extra(module: str, name: str, extra: str, options: Mapping[str, object]) -> Any:  # noqa: ANN401 (dask has no types)
    """Start the cluster class of an optional package."""
    try:
        return getattr(import_module(module), name)(**options)
    except ImportError as error:
        raise ConfigError(
            f"got --cluster {extra}, which needs {module}; pip install 'wsi-seg[{extra}]'"
        ) from error


def workers_of(
    client: Client, model: Model, options: InferOptions, *, progress: Progress
) -> Workers:
    """Make the workers of a cluster ready for `run.infer_with`; see `run_distributed`.

    One is asked where it computes, for this machine may have no GPU; all then compute so, because
    workers of several kinds must not choose differently.

    Raises
    ------
    ConfigError
        If the worker has no such device.
    """
    place = client.submit(place_here, options.device, options.precision, pure=False).result()
    options = replace(options, precision=place.precision)

    def produce(outputs: Sequence[SlideOutput], memory: MemoryPlan) -> Produced:
        change = client.submit(_compare, outputs[:_COMPARED], model, options, memory, pure=False)
        tiles = run_distributed(outputs, model, options, memory, client=client, progress=progress)
        return Produced(tiles, 0.0, change.result())  # nobody adds up what workers are busy

    return Workers(place, produce)


def _compare(
    outputs: Sequence[SlideOutput], model: Model, options: InferOptions, memory: MemoryPlan
) -> Change:
    """Tell in a worker, which has the model in memory anyway, what its speed costs."""
    return first_change(outputs, _loaded(model, options, memory.resident))


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
    hosts = [one["host"] for one in client.scheduler_info(n_workers=-1)["workers"].values()]
    workers, sharing = max(1, len(hosts)), max(Counter(hosts).values(), default=1)
    tasks = [output.task for output in outputs]
    parts = list(shared_out(tasks, workers=workers, batch=max(memory.batches)))
    named = {output.plan.slide: output for output in outputs}
    progress.start("infer", sum(task.windows for part in parts for task in part), "tiles")
    tiles = 0
    errands = _Errands(client, partial(_work, model, options, memory, sharing), parts)
    for task in tasks:
        if not task.strips:
            errands.finish(named[task.store.name])
    for done, found in errands:
        if isinstance(done, SlideOutput):
            done.complete = True
            continue
        predicted, quarantined = found
        for task, windows in zip(done, quarantined, strict=True):
            output = named[task.store.name]
            output.record(sorted(task.strips), windows)
            if not output.task.strips:
                errands.finish(output)
            progress.advance(task.windows)
        tiles += predicted
    progress.finish()
    return tiles


class _Errands:
    """Parts and slides that are with the workers; iterating gives what each of them returned.

    Only some thousand are sent at a time, so neither the client nor the scheduler ever holds a
    whole run, and workers that join late still find work.
    """

    def __init__(
        self, client: Client, work: Callable[[Part], object], parts: Sequence[Part]
    ) -> None:
        self._client, self._work = client, work
        self._waiting = iter(parts)
        self._sent: dict[Any, Part | SlideOutput] = {}  # by dask's futures
        self._returned = as_completed()
        for part in islice(self._waiting, _AT_ONCE):
            self._send(self._work, part)

    def finish(self, output: SlideOutput) -> None:
        """Have a slide's coarser levels made, before other work, so that slides get done."""
        self._send(_finish, output, priority=1)

    def _send(
        self, work: Callable[..., object], what: Part | SlideOutput, priority: int = 0
    ) -> None:
        future = self._client.submit(work, what, pure=False, priority=priority)
        self._sent[future] = what
        self._returned.add(future)

    def __iter__(self) -> Iterator[tuple[Part | SlideOutput, Any]]:
        for future in self._returned:
            what = self._sent.pop(future)
            for part in islice(self._waiting, max(0, _AT_ONCE - len(self._sent))):
                self._send(self._work, part)
            try:
                found = future.result()
            except KilledWorker as error:
                raise OutputError(_killed(what)) from error
            yield what, found


def _killed(what: Part | SlideOutput) -> str:
    if isinstance(what, SlideOutput):
        place = f"the coarser levels of slide {what.plan.slide!r}"
    else:
        first, last = what[0], what[-1]
        place = f"slide {first.store.name!r}, strips from {min(first.strips)}"
        place += f" to slide {last.store.name!r}, strip {max(last.strips)}"
    return (
        f"workers died again and again on {place}, most often for want of memory; repeat the "
        "command with fewer workers, or with --max-ram"
    )


def _work(
    model: Model, options: InferOptions, memory: MemoryPlan, sharing: int, part: Part
) -> tuple[int, list[list[Quarantined]]]:
    """Produce a part in a worker; ``sharing`` workers of one machine share out its cores."""
    share = max(1, (os.cpu_count() or 1) // sharing)
    torch.set_num_threads(min(share, torch.get_num_threads()))  # OMP_NUM_THREADS may say less
    works = [Work(task, task.write) for task in part]
    predictors = _loaded(model, options, memory.resident)
    predicted = predict_works(works, model, predictors, memory, progress=Silent())
    return predicted, [work.quarantined for work in works]


def _finish(output: SlideOutput) -> None:
    """Finish a slide in a worker: its coarser levels take long, and the client must not wait."""
    output.finish()


@lru_cache(maxsize=1)
def _loaded(model: Model, options: InferOptions, resident: int) -> list[MemberPredictor]:
    """Load the model once for each worker; it is kept between tasks."""
    build = partial(build_predictor, options=options)
    return MemberPredictors(model, build, resident=resident).each()
