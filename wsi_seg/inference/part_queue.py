"""Owns the queue of work for a cluster's workers: parts, slides to finish, and their results."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched, islice
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, as_completed

from wsi_seg.errors import OutputError
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.parts import Part
from wsi_seg.inference.task import StripTask

# Parts submitted to the scheduler at a time; enough to keep all workers of a cluster busy.
_AT_ONCE = 2048

# Parts per message. Those of small slides contain a hundred each, and dask would warn of the size.
_IN_A_MESSAGE = 64
_LARGE = {"distributed.admin.large-graph-warning-threshold": "1GB"}


@dataclass(frozen=True, slots=True)
class Ending:
    """Slides with all strips written, which remain to be finished."""

    outputs: tuple[SlideOutput, ...]


class PartQueue:
    """Submits parts and slides to workers; iterate over it for their results.

    Only about two thousand are submitted at a time, so that neither the client nor the scheduler
    holds a whole run, and workers that join late get work too.

    Parameters
    ----------
    client
        Client of the cluster.
    work, end
        Functions that predict a part, and finish slides, on a worker.
    parts
        Parts in processing order.
    """

    def __init__(
        self,
        client: Client,
        work: Callable[[Part], object],
        end: Callable[[Sequence[tuple[StripTask, Path]]], object],
        parts: Sequence[Part],
    ) -> None:
        self._client, self._work, self._end = client, work, end
        self._waiting = iter(parts)
        self._submitted: dict[Any, Part | Ending] = {}  # by dask's futures
        # On the loop of this client, not of the default one. Results are fetched in the background:
        # each takes a round trip through the scheduler to a worker.
        self._returned = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self._submit(_AT_ONCE)

    def finish(self, outputs: Sequence[SlideOutput]) -> None:
        """Let a worker finish complete slides, with priority over other work."""
        ready = tuple(output for output in outputs if output.may_finish())
        if ready:
            slides = [(output.task, output.final) for output in ready]
            future = self._client.submit(self._end, slides, pure=False, priority=1)
            self._keep(future, Ending(ready))

    def _submit(self, count: int) -> None:
        """Submit the next parts, which the scheduler queues until a worker is free."""
        for parts in batched(islice(self._waiting, count), _IN_A_MESSAGE):
            with dask.config.set(_LARGE):
                futures = self._client.map(self._work, parts, pure=False)
            for future, part in zip(futures, parts, strict=True):
                self._keep(future, part)

    def _keep(self, future: Any, what: Part | Ending) -> None:  # noqa: ANN401 (dask has no types)
        self._submitted[future] = what
        self._returned.add(future)

    def __iter__(self) -> Iterator[tuple[Part | Ending, Any]]:
        for future, found in self._returned:
            what = self._submitted.pop(future)
            self._submit(max(0, _AT_ONCE - len(self._submitted)))
            if future.status != "finished":
                with lost(_place(what)):
                    future.result()  # raises its error
            yield what, found


@contextmanager
def lost(what: str) -> Iterator[None]:
    """Replace dask's errors for lost workers or a lost scheduler with a readable one.

    Parameters
    ----------
    what
        What the workers were processing, for the message.

    Raises
    ------
    OutputError
        If workers died repeatedly, or the scheduler was lost.
    """
    try:
        yield
    except KilledWorker as error:
        raise OutputError(
            f"workers died several times on {what}, most often because memory ran out; repeat the "
            "command with fewer workers, with --max-ram, or with workers that have more memory"
        ) from error
    except CancelledError as error:  # raised by dask once its scheduler is gone
        raise OutputError(
            "the scheduler was lost or restarted; strips that are done are kept: repeat the "
            "command once it runs again"
        ) from error


def _place(what: Part | Ending) -> str:
    if isinstance(what, Ending):
        return f"the coarser levels of slide {what.outputs[0].plan.slide!r}"
    first, last = what[0], what[-1]
    place = f"slide {first.store.name!r}, strips from {min(first.strips)}"
    return f"{place} to slide {last.store.name!r}, strip {max(last.strips)}"
