"""Owns the one policy for many slides: what fails is noted by name, all others are done."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Protocol

from wsi_seg.errors import BatchError, WsiSegError
from wsi_seg.progress import Progress

logger = logging.getLogger(__name__)


class Report(Protocol):
    """What a verb reports: its figures, and which slides failed."""

    def lines(self) -> list[str]:
        """Figures as sentences for people."""

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides failed; all others are done."""


@dataclass(frozen=True, slots=True)
class SlidesReport[S]:
    """What most verbs report: something about each slide that is done, and what failed.

    Parameters
    ----------
    slides
        Of the slides that are done.
    failures
        Why others are not, by name.
    """

    slides: tuple[S, ...]
    failures: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides failed; all others are done."""
        require_none(self.failures, done=len(self.slides))


@dataclass(frozen=True, slots=True)
class Batch[R]:
    """Outcome of `run_each`.

    Parameters
    ----------
    results
        What the work returned, by name, in the order of the names.
    failures
        Why the others failed, by name.
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
    """Work on each slide; one that fails stops no other.

    Parameters
    ----------
    names
        Names of the slides.
    work
        Called with each name. Of its errors those of ours are noted; any other is a defect and
        passes through.
    title, unit
        Shown with the progress.
    threads
        Slides at a time; more than one where the work waits for a network.
    progress
        Advanced by slides, failed ones too.

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
    """Raise a `BatchError` if there are failures.

    Raises
    ------
    BatchError
        Names each of them, and how many slides are done.
    """
    if failures:
        raise BatchError(failures, done=done)


def elsewhere_lines(count: int) -> list[str]:
    """Sentence about slides that others of several processes do; nothing without any."""
    return [f"{count} more slides were done before, or are left to other processes"] * bool(count)
