"""Owns how processes divide the strips of a run, and take over those of exited processes."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import run_each
from wsi_seg.counts import counted
from wsi_seg.files.object_folder import for_each
from wsi_seg.files.object_path import REQUESTS, object_path
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.plan import SlidePlan, finest
from wsi_seg.inference.unfinished import incomplete
from wsi_seg.progress import Progress, Silent
from wsi_seg.shard import Shard
from wsi_seg.store.names import JOURNAL, PARTIAL
from wsi_seg.store.presence import LEASE

# Slides with more than this fraction of one process's work are divided into parts.
_FINEST = 1 / 8

# Seconds between checks of what other processes have done.
_WAIT = 0.5


@dataclass(frozen=True, slots=True)
class Division:
    """Assignment of a run's strips, which every process computes alike without communication.

    Parameters
    ----------
    parts
        For each slide, the index of the first strip of each part; a process claims whole parts.
    share
        For each slide of this process, the indices of its strips.
    """

    parts: Mapping[str, tuple[int, ...]]
    share: Mapping[str, range]


def divide(slides: Sequence[tuple[SlidePlan, ...]], shard: Shard | None) -> Division:
    """Divide a run by its tiles, largest slides first, into runs of consecutive strips.

    Parameters
    ----------
    slides
        Plans of all slides of the run, including complete ones.
    shard
        Share of this process; None is the whole run, with one part for each slide.
    """
    shard = shard or Shard(1, 1)
    tiles = {plans[0].slide: max(1, sum(int(one.keep.sum()) for one in plans)) for plans in slides}
    strips = {plans[0].slide: len(finest(plans).strips) for plans in slides}
    limit = sum(tiles.values()) / shard.count * _FINEST
    parts, line, work = {}, [], []
    for slide in sorted(tiles, key=lambda name: (-tiles[name], name)):
        count, pieces = strips[slide], 1
        if shard.count > 1:
            pieces = min(count, math.ceil(tiles[slide] / limit))
        parts[slide] = tuple(count * piece // pieces for piece in range(pieces))
        for first, after in zip(parts[slide], [*parts[slide][1:], count], strict=True):
            line.append((slide, first, after))
            work.append(tiles[slide] * (after - first) / count)
    share: dict[str, range] = {}
    for index in shard.cut(work):
        slide, first, after = line[index]
        share[slide] = range(share[slide].start if slide in share else first, after)
    return Division(parts, share)


class Rounds:
    """Iterates over lists of slides to work on: the process's share, then work left by others.

    After its share, a process takes over the parts of processes that have exited. If its share was
    already done, as for a repeated command, it takes all parts that no running process holds.

    Parameters
    ----------
    out
        Prediction collection.
    begin
        Starts or continues the output of a slide.
    slides
        Number of strips of each slide of the run.
    share
        See `Division`.
    whole
        Whether to wait until all slides are done, including those of other processes.
    progress
        Shows that the run waits for other processes.
    """

    def __init__(
        self,
        out: Path,
        begin: Callable[[str], SlideOutput],
        slides: Mapping[str, int],
        share: Mapping[str, range],
        *,
        whole: bool,
        progress: Progress,
    ) -> None:
        self.outputs: dict[str, SlideOutput] = {}
        self.failures: dict[str, str] = {}
        self._out, self._start, self._slides = out, begin, slides
        self._share, self._whole, self._progress = share, whole, progress
        self._threads = 1 if object_path(out) is None else REQUESTS

    @property
    def left(self) -> list[str]:
        """Slides that are neither complete nor failed."""
        known = self.outputs
        return incomplete(
            self._out,
            (
                name
                for name in self._slides
                if name not in self.failures and not (name in known and known[name].complete)
            ),
        )

    def __iter__(self) -> Iterator[list[SlideOutput]]:
        self._begin(list(self._share))
        own = [output for output in self.outputs.values() if not output.complete]
        taken = self._each(own, lambda output: output.take(self._share[output.store.name]))
        helps, since = self._whole or not taken, time.monotonic()
        while True:
            if taken:
                yield taken
                since = time.monotonic()
            left = self.left
            taken = self._take(left, helps=helps)
            if taken:
                continue
            patience = math.inf if self._whole else LEASE * 1.5 if helps else 0.0
            if not left or time.monotonic() - since >= patience:
                return
            self._progress.note(f"waiting for other processes: {counted(len(left), 'slide')} left")
            time.sleep(_WAIT)

    def _begin(self, names: Sequence[str]) -> None:
        batch = run_each(
            names, self._start, title="begin", threads=self._threads, progress=Silent()
        )
        self.outputs |= batch.results
        self.failures |= batch.failures

    def _take(self, left: Sequence[str], *, helps: bool) -> list[SlideOutput]:
        """Claim unclaimed parts of these slides, or only the parts of exited processes."""
        begun = [name for name in left if helps or self._is_begun(name)]
        self._begin([name for name in begun if name not in self.outputs])
        outputs = [self.outputs[name] for name in begun if name in self.outputs]
        return self._each(
            [output for output in outputs if not output.complete],
            lambda output: output.take(range(self._slides[output.store.name]), left_only=not helps),
        )

    def _each(
        self, outputs: Sequence[SlideOutput], is_wanted: Callable[[SlideOutput], bool]
    ) -> list[SlideOutput]:
        """Select the outputs that match; object stores are asked about several at a time."""
        answers = for_each(self._out, is_wanted, outputs)
        return [output for output, answer in zip(outputs, answers, strict=True) if answer]

    def _is_begun(self, name: str) -> bool:
        return (self._out / PARTIAL / name / JOURNAL).is_file()
