"""Owns starting a cluster of dask workers, or connecting to one, and what all of them must share.

Pages of schedulers stay on this machine, unless dask is configured otherwise:
``DASK_WSI_SEG__DASHBOARD=:8787`` shows it to others, with all that it says of slides.
"""

import contextlib
import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny

from wsi_seg.cores import available_cores
from wsi_seg.errors import ConfigError
from wsi_seg.extras import naming_extra
from wsi_seg.files.object_path import object_path
from wsi_seg.predict.device import visible_gpus

# A port of its own on loopback, or a second cluster complains.
_PAGE = "127.0.0.1:0"

# Tasks that a worker is given at a time: the next one computes while strips of one are written.
THREADS = 2

# dask's settings for many tasks of a millisecond with results in memory; ours take seconds, and
# leave nothing there. The profiler reads every thread's stack a hundred times a second, the tick
# wakes every process fifty times and the memory monitor ten times. A worker that is paused because
# it keeps freed memory for its network would wait for ever.
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.client.scheduler-info-interval": "1 minute",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}

# Run by each worker that is started here: the terminal sends Ctrl-C to workers, too, but the client
# ends them; and that a task of a worker that ends is cancelled is no news.
_PRELOAD = """
import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
"""

# What decides the bytes of a prediction, or what travels between client and workers.
_SAME = ("wsi-seg", "dask", "distributed", "torch", "numpy", "zarr", "imagecodecs")


@contextlib.contextmanager
def connected(cluster: str) -> Iterator[Client]:
    """Connect to a cluster, and start it where it is local.

    Parameters
    ----------
    cluster
        ``local:N`` starts N processes here, ``cuda`` one for each GPU (``cuda:N`` for N of them),
        ``slurm:N`` submits N jobs as dask-jobqueue is configured (``slurm`` one, ``slurm:N-M``
        between N and M, as there is work), ``tcp://HOST:PORT`` is a scheduler that runs already.

    Raises
    ------
    ConfigError
        If it is another word, or a package that it needs is not installed.
    """
    kind, _, word = cluster.partition(":")
    if kind in ("tcp", "tls"):
        try:
            client = Client(cluster, timeout="10s")
        except OSError as error:
            raise ConfigError(f"got --cluster {cluster!r}, but nothing answers there") from error
        with _lost_in_silence(), client:
            yield client
    elif kind in ("local", "cuda", "slurm"):
        with _started(cluster, kind, word) as workers, Client(workers) as client:
            yield client
    else:
        raise ConfigError(
            f"got --cluster {cluster!r}; expected local:N, cuda[:N], slurm[:N[-M]] or "
            "tcp://HOST:PORT"
        )


@contextlib.contextmanager
def _lost_in_silence() -> Iterator[None]:
    """Leave out the tracebacks that dask logs of a lost scheduler: a sentence says it."""
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _started(cluster: str, kind: str, word: str) -> Iterator[Any]:
    """Start the cluster of a kind; its scheduler's page is on loopback."""
    page = {"dashboard_address": dask.config.get("wsi-seg.dashboard", _PAGE)}
    if kind == "slurm":
        fewest, most = _range(cluster, word or "1")
        # Its workers are other machines, so the scheduler has to listen to them; its page has not.
        with _settings({}), naming_extra("--cluster slurm"):
            jobs = import_module("dask_jobqueue").SLURMCluster(scheduler_options=page)
            with jobs:
                _scale(jobs, fewest, most)
                yield jobs
        return
    gpus = _gpus(cluster, word) if kind == "cuda" else None
    count = _count(cluster, word) if gpus is None else len(gpus)
    cores = max(1, available_cores() // count)
    with (
        _settings({"OMP_NUM_THREADS": cores}),
        LocalCluster(
            n_workers=count,
            threads_per_worker=THREADS,
            worker_class=Nanny if gpus is None else _on_gpus(gpus),
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs=page,  # even without a dashboard a scheduler serves figures
        ) as workers,
    ):
        yield workers


def _gpus(cluster: str, word: str) -> Sequence[str]:
    """Find the GPUs of ``cuda`` or ``cuda:N``."""
    found = visible_gpus()
    count = _count(cluster, word) if word else max(1, len(found))
    if count > len(found):
        raise ConfigError(
            f"got --cluster {cluster!r}, but this machine has {len(found) or 'no'} usable CUDA "
            f"device{'' if len(found) == 1 else 's'}; see: wsi-seg doctor"
        )
    return found[:count]


def _on_gpus(gpus: Sequence[str]) -> type[Nanny]:
    """Make what starts workers that see one GPU each, by their number."""

    class OnGpu(Nanny):
        def __init__(self, scheduler: Any, *, name: int, **options: Any) -> None:  # noqa: ANN401
            environment = {"CUDA_VISIBLE_DEVICES": gpus[name]}
            super().__init__(scheduler, name=name, env=environment, **options)

    return OnGpu


def _scale(workers: Any, fewest: int, most: int) -> None:  # noqa: ANN401 (dask has no types)
    if fewest == most:
        workers.scale(jobs=most)
    else:
        workers.adapt(minimum_jobs=fewest, maximum_jobs=most)


def _range(cluster: str, word: str) -> tuple[int, int]:
    """Fewest and most of ``N`` or ``N-M``."""
    low, _, high = word.partition("-")
    fewest, most = _count(cluster, low), _count(cluster, high or low)
    if fewest > most:
        raise ConfigError(f"got --cluster {cluster!r}; expected the smaller number first")
    return fewest, most


def _count(cluster: str, word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ConfigError(
            f"got --cluster {cluster!r}; expected a number of 1 or more after the colon"
        )
    return int(word)


@contextlib.contextmanager
def _settings(environment: Mapping[str, object]) -> Iterator[None]:
    """Start scheduler and workers with our settings, and workers with these variables.

    A variable that is set here already counts more. Without dask's own for malloc, which makes it
    give memory back at once: a network asks for the same memory again with every layer.
    """
    key = "distributed.nanny.pre-spawn-environ"
    own = {**dask.config.get(key), **environment}
    own.pop("MALLOC_TRIM_THRESHOLD_", None)
    preload = [*dask.config.get("distributed.worker.preload"), _PRELOAD]
    with dask.config.set({key: own, "distributed.worker.preload": preload, **_QUIET}):
        yield


def versions_here() -> dict[str, str]:
    """Give the versions that decide the bytes of a prediction, or what workers understand."""
    return {"Python": platform.python_version(), **{name: version(name) for name in _SAME}}


def require_same_versions(client: Client, here: Mapping[str, str]) -> None:
    """Compare what is installed here with what the workers have that are there by now.

    Parameters
    ----------
    client
        From `connected`, with a worker or more.
    here
        See `versions_here`.

    Raises
    ------
    ConfigError
        If they differ: results would, or nothing would be understood.
    """
    different: dict[str, list[str]] = {}
    # All are asked once: with hundreds of workers a question takes seconds.
    for worker, there in client.run(_asking(tuple(here))).items():
        for name, known in here.items():
            if _release(name, there[name]) != _release(name, known):
                different.setdefault(worker, []).append(f"{name} {there[name]}, here {known}")
    if not different:
        return
    worker, found = next(iter(different.items()))
    others = f", and of {len(different) - 1} more" if len(different) > 1 else ""
    raise ConfigError(
        f"got other versions on worker {worker}{others}: {'; '.join(found)}; expected the same on "
        "all, or results differ: install the same there (constraints.txt), and repeat the command"
    )


def require_same_files(client: Client, paths: Iterable[Path]) -> None:
    """Make sure that the workers that are there by now see files and folders that are here.

    Parameters
    ----------
    client
        From `connected`.
    paths
        Those in object stores, which workers reach by their address, are left out.

    Raises
    ------
    ConfigError
        If a worker does not see all of them.
    """
    wanted = sorted({str(path) for path in paths if object_path(path) is None})
    absent = {worker: found for worker, found in client.run(_absent, wanted).items() if found}
    if not absent:
        return
    worker, missing = next(iter(absent.items()))
    others = f", and {len(absent) - 1} more do not see all" if len(absent) > 1 else ""
    raise ConfigError(
        f"worker {worker} does not see {missing[0]}{others}; expected model, slides and output on "
        "a disk that every worker sees under the same path"
    )


def _absent(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def _asking(names: tuple[str, ...]) -> Callable[[], dict[str, str]]:
    """Make what finds versions; it travels whole, so that a worker without wsi_seg can answer."""

    def versions_there() -> dict[str, str]:
        import platform
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        for name in names:
            try:
                found[name] = platform.python_version() if name == "Python" else version(name)
            except PackageNotFoundError:
                found[name] = "absent"
        return found

    return versions_there


def _release(name: str, found: str) -> str:
    """Give what of a version must be the same.

    Not what it was built for: ``2.11.0+cu130`` computes as ``2.11.0`` does.
    """
    if name == "Python":
        return ".".join(found.split(".")[:2])
    return found.partition("+")[0]
