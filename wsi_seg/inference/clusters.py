"""Owns connections to dask clusters: starts them, and checks the versions and files of workers.

The scheduler's dashboard listens only on the loopback interface unless dask is configured
otherwise: ``DASK_WSI_SEG__DASHBOARD=:8787`` exposes it to other machines, with the names of slides.
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

# Any free port, because dask warns if a second cluster uses the same one.
_DASHBOARD = "127.0.0.1:0"

# dask's defaults are for many tasks of milliseconds with results in memory; ours take seconds and
# return almost nothing. The profiler would sample stacks a hundred times a second, the tick wake
# every process fifty times and the memory monitor ten times. A worker paused because it keeps
# freed memory for its network would never resume.
_DASK_SETTINGS = {
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

# Run by each worker that is started here. The terminal sends Ctrl-C to workers too, but the client
# must stop them; warnings about tasks cancelled by that are hidden.
_PRELOAD = """
import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
"""

# Packages that determine the bytes of a prediction, or the protocol of client and workers.
_SAME = ("wsi-seg", "dask", "distributed", "torch", "numpy", "zarr", "imagecodecs")


@contextlib.contextmanager
def connected(cluster: str) -> Iterator[Client]:
    """Connect to a cluster, or start one.

    Parameters
    ----------
    cluster
        ``local:N`` starts N processes here, ``cuda`` one for each GPU (``cuda:N`` for N of them),
        ``slurm:N`` submits N jobs with the configuration of dask-jobqueue (``slurm`` one,
        ``slurm:N-M`` between N and M, depending on the work), ``tcp://HOST:PORT`` connects to a
        running scheduler.

    Yields
    ------
    Client
        Closed at the end, together with a cluster that was started.

    Raises
    ------
    ConfigError
        If the value is invalid, the scheduler does not answer, or a package is not installed.
    """
    kind, _, word = cluster.partition(":")
    if kind in ("tcp", "tls"):
        try:
            client = Client(cluster, timeout="10s", set_as_default=False)
        except OSError as error:
            raise ConfigError(f"got --cluster {cluster!r}, but nothing answers there") from error
        except (ValueError, TypeError) as error:  # no port, or tls without certificates
            raise ConfigError(
                f"got --cluster {cluster!r}: {error}; expected tcp://HOST:PORT, or tls:// with the "
                "certificates in dask's configuration"
            ) from error
        with _without_tracebacks(), client:
            yield client
    elif kind in ("local", "cuda", "slurm"):
        with (
            _started(cluster, kind, word) as workers,
            Client(workers, set_as_default=False) as client,
        ):
            yield client
    else:
        raise ConfigError(
            f"got --cluster {cluster!r}; expected local:N, cuda[:N], slurm[:N[-M]] or "
            "tcp://HOST:PORT"
        )


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Hide the tracebacks that dask logs for a lost scheduler; `part_queue.lost` reports it."""
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
    """Start a cluster of a kind."""
    page = {"dashboard_address": dask.config.get("wsi-seg.dashboard", _DASHBOARD)}
    if kind == "slurm":
        fewest, most = _range(cluster, word or "1")
        # The scheduler must listen to workers on other machines; its dashboard need not.
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
            threads_per_worker=1,  # see `worker`
            worker_class=Nanny if gpus is None else _on_gpus(gpus),
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs=page,  # even without a dashboard, a scheduler serves HTTP
        ) as workers,
    ):
        yield workers


def _gpus(cluster: str, word: str) -> Sequence[str]:
    """Return the GPUs for ``cuda`` or ``cuda:N``."""
    found = visible_gpus()
    count = _count(cluster, word) if word else max(1, len(found))
    if count > len(found):
        raise ConfigError(
            f"got --cluster {cluster!r}, but this machine has {len(found) or 'no'} usable CUDA "
            f"device{'' if len(found) == 1 else 's'}; see: wsi-seg doctor"
        )
    return found[:count]


def _on_gpus(gpus: Sequence[str]) -> type[Nanny]:
    """Return a class that starts workers that see one GPU each, by their number."""

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
    """Parse ``N`` or ``N-M`` to the smallest and the largest number of jobs."""
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
    """Configure scheduler and workers, and the environment variables of workers.

    Variables that are already set here take precedence. dask's setting for malloc, which returns
    freed memory immediately, is removed: a network allocates the same memory for every layer.
    """
    key = "distributed.nanny.pre-spawn-environ"
    own = {**dask.config.get(key), **environment}
    own.pop("MALLOC_TRIM_THRESHOLD_", None)
    preload = [*dask.config.get("distributed.worker.preload"), _PRELOAD]
    with dask.config.set({key: own, "distributed.worker.preload": preload, **_DASK_SETTINGS}):
        yield


def versions_here() -> dict[str, str]:
    """Return the installed versions of Python and of packages that must agree with workers."""
    return {"Python": platform.python_version(), **{name: version(name) for name in _SAME}}


def require_same_versions(client: Client, here: Mapping[str, str]) -> None:
    """Check that the workers connected now have the same versions as this process.

    Parameters
    ----------
    client
        Client from `connected`, with at least one worker.
    here
        See `versions_here`.

    Raises
    ------
    ConfigError
        If versions differ, because results would differ or messages could not be decoded.
    """
    different: dict[str, list[str]] = {}
    # One request for all names: with hundreds of workers a request takes seconds.
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
    """Check that the workers connected now see the same files and folders as this process.

    Parameters
    ----------
    client
        Client from `connected`.
    paths
        Files and folders; those in object stores are not checked.

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
    """Return a function that looks up versions, pickled by value for workers without wsi_seg."""

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
    """Return the part of a version that must agree.

    The build is ignored: ``2.11.0+cu130`` computes the same as ``2.11.0``.
    """
    if name == "Python":
        return ".".join(found.split(".")[:2])
    return found.partition("+")[0]
