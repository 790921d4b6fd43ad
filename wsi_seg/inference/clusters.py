"""Owns starting a cluster of dask workers, or connecting to one, and what all of them must share.

Pages of schedulers stay on this machine, unless dask is configured otherwise:
``DASK_WSI_SEG__DASHBOARD=:8787`` shows it to others, with all that it says of slides.
"""

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Any

import dask
from distributed import Client, LocalCluster

from wsi_seg.errors import ConfigError
from wsi_seg.extras import naming_extra

# A port of its own on loopback, or a second cluster complains.
_PAGE = "127.0.0.1:0"

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
        with client:
            yield client
    elif kind in ("local", "cuda", "slurm"):
        jobs = _range(cluster, word or "1") if kind == "slurm" else None
        with _worker_environment(), _started(cluster, kind, word) as workers:
            if jobs is not None:
                _scale(workers, *jobs)
            with Client(workers) as client:
                yield client
    else:
        raise ConfigError(
            f"got --cluster {cluster!r}; expected local:N, cuda[:N], slurm[:N[-M]] or "
            "tcp://HOST:PORT"
        )


def _started(cluster: str, kind: str, word: str) -> Any:  # noqa: ANN401 (dask has no types)
    """Start the cluster class of a kind; its scheduler's page is on loopback."""
    page = {"dashboard_address": dask.config.get("wsi-seg.dashboard", _PAGE)}
    # Even without a dashboard a scheduler serves figures.
    here = {"host": "127.0.0.1", "dashboard_address": None, "scheduler_kwargs": page}
    if kind == "local":
        return LocalCluster(n_workers=_count(cluster, word), threads_per_worker=1, **here)
    if kind == "cuda":
        gpus = {"n_workers": _count(cluster, word)} if word else {}
        return _extra("dask_cuda", "LocalCUDACluster", "cuda", {**here, **gpus})
    # Its workers are other machines, so the scheduler has to listen to them; its page has not.
    return _extra("dask_jobqueue", "SLURMCluster", "slurm", {"scheduler_options": page})


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
def _worker_environment() -> Iterator[None]:
    """Start workers without dask's setting of malloc, its profiler and its frequent tick.

    The setting makes malloc give memory back at once, and a network asks for the same memory again
    with every layer. The profiler reads every thread's stack a hundred times a second, and the tick
    wakes every process fifty times a second.
    """
    key = "distributed.nanny.pre-spawn-environ"
    environment = {
        name: value
        for name, value in dask.config.get(key).items()
        if name != "MALLOC_TRIM_THRESHOLD_"
    }
    quiet = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
    with dask.config.set({key: environment, **quiet}):
        yield


def _extra(module: str, name: str, extra: str, options: Mapping[str, object]) -> Any:  # noqa: ANN401 (dask has no types)
    """Start the cluster class of an optional package."""
    with naming_extra(f"--cluster {extra}"):
        return getattr(import_module(module), name)(**options)


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
