"""Owns prediction with all members of a model in step, and combining their strips.

Members that read the same pixels with the same tiles share one stream, so that rows are read and
uploaded once. Other members have their own streams, which run only as far as the next strip needs.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.plan import Quarantined, SlidePlan
from wsi_seg.inference.resample import resized, rows_under
from wsi_seg.inference.stream import Job, Sizes, TileStream
from wsi_seg.inference.strips import PendingStrip, Strip, StripSink, Wanted
from wsi_seg.inference.task import StripTask
from wsi_seg.inference.transfer import Budget
from wsi_seg.inference.waits import WaitTimes
from wsi_seg.predict.combine import combine
from wsi_seg.predict.ensemble import Model
from wsi_seg.predict.predictor import TilePredictor
from wsi_seg.progress import Progress
from wsi_seg.store import shared_cache

# Values to combine at a time; intermediate sums take several times their memory.
_BLOCK = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class StripJob:
    """Strips of one slide to predict with all members.

    Parameters
    ----------
    task
        Slide, plans and strips.
    sink
        Called with each strip, in order.
    quarantined
        Filled with unreadable tiles, see `stream.Job`.
    """

    task: StripTask
    sink: StripSink
    quarantined: list[Quarantined] = field(default_factory=list)


def predict_strip_jobs(
    strip_jobs: Sequence[StripJob],
    model: Model,
    predictors: Sequence[TilePredictor],
    memory: MemoryPlan,
    *,
    progress: Progress,
    waits: WaitTimes,
) -> int:
    """Predict the strips of all jobs; return the number of tiles predicted.

    Parameters
    ----------
    strip_jobs
        Jobs in processing order.
    model
        The members, and how to combine them.
    predictors
        One for each member.
    memory
        Batch sizes and buffer limits.
    progress
        Advanced by the number of tiles.
    waits
        Measures waiting times.
    """
    shared_cache().resize(memory.cache)
    if len(predictors) == 1:
        jobs = [
            strip_job.task.job(0, (strip_job.sink,), strip_job.task.wanted, strip_job.quarantined)
            for strip_job in strip_jobs
        ]
        stream = TileStream(jobs, predictors, memory.sizes(0), progress=progress, waits=waits)
        return sum(stream)
    streams = [
        _MemberStream(strip_jobs, members, predictors, memory, progress=progress, waits=waits)
        for members in _groups(strip_jobs, memory)
    ]
    budget = Budget(memory.strips, waits.writing)
    for number, strip_job in enumerate(strip_jobs):
        plan = strip_job.task.plan
        for index in sorted(strip_job.task.strips):
            needed = [part for one in streams for part in one.strips(number, plan.strips[index])]
            needed.sort(key=lambda part: part.member)
            strip_job.sink(_combined(index, plan, needed, model, budget))
    return sum(one.finish() for one in streams)


def _groups(strip_jobs: Sequence[StripJob], memory: MemoryPlan) -> list[tuple[int, ...]]:
    """Group members that can share a stream: same grid on every slide, and all in memory."""
    count = len(memory.batches)
    if memory.resident < count:
        return [(member,) for member in range(count)]
    groups: dict[object, list[int]] = {}
    for member in range(count):
        grids = tuple(_grid(strip_job.task.plans[member]) for strip_job in strip_jobs)
        groups.setdefault((memory.batches[member], grids), []).append(member)
    return [tuple(members) for members in groups.values()]


def _grid(plan: SlidePlan) -> object:
    """Return a key that is equal for members that read the same pixels of a slide in step."""
    return plan.level, plan.extent, plan.tile_px, plan.ys, plan.xs, plan.keep.tobytes(), plan.view


@dataclass(frozen=True, slots=True)
class _Rows:
    """Strips of one member that a strip of the output needs, each with its first row."""

    member: int
    plan: SlidePlan
    strips: tuple[tuple[int, Callable[[], Strip]], ...]


def _combined(
    index: int, plan: SlidePlan, parts: Sequence[_Rows], model: Model, budget: Budget
) -> PendingStrip:
    """Return a function that waits for the members' strips and combines them, in blocks of rows.

    Members that saw a resized slide are combined at the slide's own size: scaling their votes
    would average them.
    """
    y, y_end = plan.strips[index]
    nbytes = (y_end - y) * plan.extent.width * len(model.card.classes) * (len(parts) + 1)
    budget.take(nbytes)

    def arrived() -> Strip:
        try:
            members = [_joined(part) for part in parts]
        finally:
            budget.give(nbytes)

        def together(wanted: range, full: Extent) -> NDArray[np.uint8]:
            found = [
                _rows(member, first, part.plan, full, wanted)
                for part, (first, member) in zip(parts, members, strict=True)
            ]
            exclusive = model.card.classes.is_exclusive
            return combine(found, model.weights, model.mode, exclusive=exclusive)

        native = plan.native
        if native is not None:
            return Strip(index, None, native=lambda rows: together(rows, native))
        step = max(1, _BLOCK // (plan.extent.width * len(model.card.classes)))
        blocks = [range(top, min(top + step, y_end)) for top in range(y, y_end, step)]
        return Strip(index, np.concatenate([together(rows, plan.extent) for rows in blocks]))

    return arrived


def _joined(part: _Rows) -> tuple[int, NDArray[np.uint8]]:
    """Concatenate a member's strips; return the first row, and probabilities ``(H, W, C)``."""
    found = [strip().probabilities for _, strip in part.strips]
    rows = [one for one in found if one is not None]
    return part.strips[0][0], rows[0] if len(rows) == 1 else np.concatenate(rows)


def _rows(
    member: NDArray[np.uint8], first: int, own: SlidePlan, full: Extent, wanted: range
) -> NDArray[np.uint8]:
    """Return rows of a member, whose first row is ``first``, at the size of the output."""
    if own.extent == full:
        return member[wanted.start - first : wanted.stop - first]
    needed = rows_under(wanted, small=own.extent.height, full=full.height)
    part = member[needed.start - first : needed.stop - first]
    return resized(part, needed.start, wanted, small=own.extent, full=full)


class _MemberStream:
    """Strips of members that share a stream, predicted on demand from top to bottom."""

    def __init__(
        self,
        strip_jobs: Sequence[StripJob],
        members: tuple[int, ...],
        predictors: Sequence[TilePredictor],
        memory: MemoryPlan,
        *,
        progress: Progress,
        waits: WaitTimes,
    ) -> None:
        self._tasks = [strip_job.task for strip_job in strip_jobs]
        self._members = members
        self._tiles = 0
        # For each member: number of the job, first row, row after the last, and the strip.
        self._made: dict[int, deque[tuple[int, int, int, Callable[[], Strip]]]] = {
            member: deque() for member in members
        }
        jobs: list[Job] = [
            strip_job.task.job(
                members[0],
                tuple(self._sink(number, member, strip_job.task) for member in members),
                Wanted(),
                strip_job.quarantined,
            )
            for number, strip_job in enumerate(strip_jobs)
        ]
        # Strips are consumed by this same thread: waiting for their memory would deadlock.
        sizes: Sizes = replace(memory.sizes(members[0]), strips=None)
        chosen = [predictors[member] for member in members]
        self._stream = iter(TileStream(jobs, chosen, sizes, progress=progress, waits=waits))

    def _sink(self, number: int, member: int, task: StripTask) -> StripSink:
        strips = iter(sorted(task.strips_of(task.plans[member])))
        bounds = task.plans[member].strips

        def sink(strip: PendingStrip) -> None:
            y, y_end = bounds[next(strips)]
            self._made[member].append((number, y, y_end, _once(strip)))

        return sink

    def strips(self, number: int, wanted: tuple[int, int]) -> Iterator[_Rows]:
        """Yield the strips of each member that some rows of a job's output need."""
        task = self._tasks[number]
        for member in self._members:
            plan = task.plans[member]
            needed = range(*wanted)
            if plan.extent != task.plan.extent:
                full = task.plan.extent.height
                needed = rows_under(needed, small=plan.extent.height, full=full)
            yield _Rows(member, plan, tuple(self._under(member, number, needed)))

    def finish(self) -> int:
        """Predict the remaining tiles; return the total number of tiles predicted."""
        self._tiles += sum(self._stream)
        return self._tiles

    def _under(
        self, member: int, number: int, needed: range
    ) -> list[tuple[int, Callable[[], Strip]]]:
        """Return a member's strips that overlap rows of its output; discard the strips above."""
        made = self._made[member]
        while made and (made[0][0], made[0][2]) < (number, needed.start + 1):
            made.popleft()
        while not made or (made[-1][0], made[-1][2]) < (number, needed.stop):
            tiles = next(self._stream, None)
            if tiles is None:
                break
            self._tiles += tiles
        return [
            (y, strip)
            for strip_job, y, y_end, strip in made
            if strip_job == number and y < needed.stop and y_end > needed.start
        ]


def _once(strip: PendingStrip) -> Callable[[], Strip]:
    """Cache a strip, which two strips of the output may need."""
    found: list[Strip] = []

    def kept() -> Strip:
        if not found:
            found.append(strip())
        return found[0]

    return kept
