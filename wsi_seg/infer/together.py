"""Owns running the members of a model in step: their strips of the same rows become one."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_seg.infer.band import StripSink
from wsi_seg.infer.combine import combine
from wsi_seg.infer.fitted import resized, rows_under
from wsi_seg.infer.members import Model
from wsi_seg.infer.memory import MemoryPlan
from wsi_seg.infer.output import StripTask
from wsi_seg.infer.predictor import TilePredictor
from wsi_seg.infer.stream import Flow, Quarantined, predict_jobs
from wsi_seg.progress import Progress
from wsi_seg.store import shared_cache

# Values that are combined at a time; the sums in between take several times their bytes.
_BLOCK = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Strips of one slide to produce, whatever predicts them.

    Parameters
    ----------
    task
        Which strips.
    sink
        Receives each of them, in order; see `Band`.
    quarantined
        Filled with windows that could not be read, see `stream.Job`.
    """

    task: StripTask
    sink: StripSink
    quarantined: list[Quarantined] = field(default_factory=list)


def predict_works(
    works: Sequence[Work],
    model: Model,
    predictors: Sequence[TilePredictor],
    memory: MemoryPlan,
    *,
    progress: Progress,
) -> int:
    """Produce the strips of all works; return the number of tiles predicted.

    A single member's strips go straight to the sinks. Several are asked in turn for the rows of
    a strip, so that what is in memory are their bands and one strip, however high the slide is.

    Parameters
    ----------
    works
        In the order they are produced.
    model
        The members and how they are combined.
    predictors
        Of each member.
    memory
        Tiles at a time, what is read ahead, and what is kept of it.
    progress
        Advanced by tiles.
    """
    shared_cache().resize(memory.cache)
    if len(predictors) == 1:
        jobs = [work.task.job(0, work.sink, work.quarantined) for work in works]
        flow = Flow(memory.batches[0], memory.ahead)
        return sum(predict_jobs(jobs, predictors[0], flow, progress=progress))
    feeds = [
        _Feed(works, member, predictor, Flow(batch, memory.ahead), progress)
        for member, (predictor, batch) in enumerate(zip(predictors, memory.batches, strict=True))
    ]
    for place, work in enumerate(works):
        plan = work.task.plan
        for index in sorted(work.task.strips):
            y, y_end = plan.strips[index]
            rows = np.empty((y_end - y, plan.extent.width, len(model.card.classes)), np.uint8)
            step = max(1, _BLOCK // rows[0].size)
            for top in range(y, y_end, step):
                wanted = range(top, min(top + step, y_end))
                parts = [feed.rows(place, wanted) for feed in feeds]
                rows[top - y : wanted[-1] + 1 - y] = combine(parts, model.weights, model.mode)
            work.sink(index, rows)
    return sum(feed.finish() for feed in feeds)


class _Feed:
    """Rows of one member's prediction, made when they are asked for, from top to bottom."""

    def __init__(
        self,
        works: Sequence[Work],
        member: int,
        predictor: TilePredictor,
        flow: Flow,
        progress: Progress,
    ) -> None:
        self._tasks = [work.task for work in works]
        self._member = member
        self._tiles = 0
        self._made: deque[tuple[int, int, NDArray[np.uint8]]] = deque()  # work, first row, rows
        jobs = [
            work.task.job(member, self._sink(place, work.task), work.quarantined)
            for place, work in enumerate(works)
        ]
        self._stream: Iterator[int] = predict_jobs(jobs, predictor, flow, progress=progress)

    def _sink(self, place: int, task: StripTask) -> StripSink:
        strips = task.plans[self._member].strips
        return lambda index, rows: self._made.append((place, strips[index][0], rows))

    def rows(self, place: int, wanted: range) -> NDArray[np.uint8]:
        """Rows of a work in px of its output, ``(len(wanted), width, C)``."""
        task = self._tasks[place]
        own, full = task.plans[self._member].extent, task.plan.extent
        if own == full:
            return self._own_rows(place, wanted)
        needed = rows_under(wanted, small=own.height, full=full.height)
        part = self._own_rows(place, needed)
        return resized(part, needed.start, wanted, small=own, full=full)

    def finish(self) -> int:
        """Run what is left; return the tiles predicted in all."""
        self._tiles += sum(self._stream)
        return self._tiles

    def _own_rows(self, place: int, wanted: range) -> NDArray[np.uint8]:
        """Rows in px of the member's own plan."""
        while self._made and self._is_past(place, wanted.start):
            self._made.popleft()
        while not self._reaches(place, wanted.stop):
            self._advance()
        parts = [
            rows[max(0, wanted.start - y) : wanted.stop - y]
            for work, y, rows in self._made
            if work == place and y < wanted.stop and y + len(rows) > wanted.start
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _is_past(self, place: int, row: int) -> bool:
        work, y, rows = self._made[0]
        return work < place or (work == place and y + len(rows) <= row)

    def _reaches(self, place: int, row: int) -> bool:
        if not self._made:
            return False
        work, y, rows = self._made[-1]
        return work > place or (work == place and y + len(rows) >= row)

    def _advance(self) -> None:
        """Predict one batch; the last one completes all strips."""
        made = len(self._made)
        tiles = next(self._stream, None)
        if tiles is not None:
            self._tiles += tiles
        assert tiles is not None or len(self._made) > made  # else a row would be missing
