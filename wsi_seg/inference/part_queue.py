"""Owns the parts and the ends of slides that are with a cluster's workers, and what comes back."""

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

# Parts that are with the scheduler at a time; more than any cluster's workers need in a while.
_AT_ONCE = 2048

# Parts of one message. Those of small slides name a hundred each, of which dask would warn.
_IN_A_MESSAGE = 64
_LARGE = {"distributed.admin.large-graph-warning-threshold": "1GB"}


@dataclass(frozen=True, slots=True)
class Ending:
    """Slides of which nothing but the end is left: those that one part has completed."""

    outputs: tuple[SlideOutput, ...]


class PartQueue:
    """Parts and slides that are with the workers; iterating gives what each of them returned.

    Only some thousand are submitted at a time, so neither the client nor the scheduler ever holds a
    whole run, and workers that join late still get work.

    Parameters
    ----------
    client
        Of the cluster.
    work, end
        What produces a part, and what finishes slides, on a worker.
    parts
        In the order they are to be produced.
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
        # Of this client, not the default one. Results are fetched while others are looked at: each
        # is a way to the scheduler and on to a worker, and hundreds of workers do not wait for it.
        self._returned = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self._submit(_AT_ONCE)

    def finish(self, outputs: Sequence[SlideOutput]) -> None:
        """Have whole slides finished by a worker, before other work, so that slides get done."""
        ready = tuple(output for output in outputs if output.may_finish())
        if ready:
            slides = [(output.task, output.final) for output in ready]
            future = self._client.submit(self._end, slides, pure=False, priority=1)
            self._keep(future, Ending(ready))

    def _submit(self, count: int) -> None:
        """Send the next parts, many at once: the scheduler keeps them until a worker is free."""
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
                    future.result()  # raises what went wrong
            yield what, found


@contextmanager
def lost(what: str) -> Iterator[None]:
    """Say in a sentence that workers, or their scheduler, were lost while they were at something.

    Raises
    ------
    OutputError
        In place of what dask raises then.
    """
    try:
        yield
    except KilledWorker as error:
        raise OutputError(
            f"workers died several times on {what}, most often because memory ran out; repeat the "
            "command with fewer workers, with --max-ram, or with workers that have more memory"
        ) from error
    except CancelledError as error:  # what dask says once its scheduler is gone
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
