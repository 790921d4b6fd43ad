"""Owns processing many slides: failures are recorded by name, and all others are done."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Protocol

from wsi_seg.counts import counted
from wsi_seg.errors import BatchError, WsiSegError
from wsi_seg.progress import Progress

logger = logging.getLogger(__name__)


class Report(Protocol):
    """Report of a command: its results, and which slides failed."""

    def lines(self) -> list[str]:
        """Return the report as lines of text."""

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""

    def require_whole(self) -> None:
        """Raise `BatchError` if some slides failed; all others are done."""


@dataclass(frozen=True, slots=True)
class SlidesReport[S]:
    """Base of most reports: an entry for each slide that is done, and the failures.

    Parameters
    ----------
    slides
        Entries of the slides that are done.
    failures
        Reasons of failures, by slide name.
    """

    slides: tuple[S, ...]
    failures: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise `BatchError` if some slides failed; all others are done."""
        require_none(self.failures, done=len(self.slides))


@dataclass(frozen=True, slots=True)
class Batch[R]:
    """Outcome of `run_each`.

    Parameters
    ----------
    results
        Return values of the work by name, in the order of the names.
    failures
        Reasons of failures, by name.
    """

    results: dict[str, R]
    failures: dict[str, str]


def run_each[R](
    names: Collection[str],
    work: Callable[[str], R],
    *,
    title: str,
    unit: str = "slides",
    threads: int = 1,
    progress: Progress,
) -> Batch[R]:
    """Process each slide; a failure does not stop the others.

    Parameters
    ----------
    names
        Names of the slides.
    work
        Called with each name. A `WsiSegError` is recorded; any other exception is a bug and
        propagates.
    title, unit
        Title and unit of the progress.
    threads
        Number of slides processed at a time; more than 1 if the work waits for a network.
    progress
        Reports progress in slides, including failed ones.

    Returns
    -------
    Batch
        Results and failures, in the order of the names.

    Examples
    --------
    >>> from wsi_seg.progress import Silent
    >>> batch = run_each(("a", "b"), str.upper, title="upper", progress=Silent())
    >>> batch.results
    {'a': 'A', 'b': 'B'}
    """
    batch: Batch[R] = Batch({}, {})
    progress.start(title, len(names), unit)

    def attempt(name: str) -> R | WsiSegError:
        try:
            return work(name)
        except WsiSegError as error:
            logger.info("%s failed: %s", name, error)
            return error

    with ExitStack() as stack:
        results: Iterator[R | WsiSegError] = map(attempt, names)
        if threads > 1 and len(names) > 1:
            results = stack.enter_context(ThreadPoolExecutor(threads)).map(attempt, names)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, WsiSegError):
                batch.failures[name] = str(result)
            else:
                batch.results[name] = result
            progress.advance(1)
    progress.finish()
    return batch


def require_none(failures: Mapping[str, str], *, done: int) -> None:
    """Raise `BatchError` if there are failures.

    Raises
    ------
    BatchError
        With all failures and the number of slides that are done.
    """
    if failures:
        raise BatchError(failures, done=done)


def elsewhere_lines(count: int) -> list[str]:
    """Return a line about slides of other processes; empty if there are none."""
    text = f"{counted(count, 'more slide')} done before, or left to other processes"
    return [text] if count else []
