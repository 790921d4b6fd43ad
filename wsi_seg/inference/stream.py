"""Owns the tile stream of one device: uploads rows once; cuts, predicts and blends tiles there."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.inference.blend import even_runs
from wsi_seg.inference.plan import Quarantined, SlidePlan
from wsi_seg.inference.source import Band, ReadAhead, SourceRows
from wsi_seg.inference.strips import Accumulator, StripSink, Wanted
from wsi_seg.inference.transfer import Budget, Transfers
from wsi_seg.inference.waits import WaitTimes
from wsi_seg.predict.predictor import TilePredictor
from wsi_seg.progress import Progress
from wsi_seg.reading.readable import Readable

logger = logging.getLogger(__name__)

# Batches queued on the device: enough to keep it busy, few enough to bound their memory.
_MAX_QUEUED = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """Batch size, and limits of the buffers of a stream.

    Parameters
    ----------
    batch
        Tiles per forward pass.
    ahead
        Bytes of source pixels being read ahead, or waiting for upload.
    strips
        Bytes of finished rows being downloaded, or waiting to be written; None for no limit, if
        the sink runs in the same thread.
    readers
        Number of concurrent reads.
    """

    batch: int
    ahead: int
    strips: int | None
    readers: int


@dataclass(slots=True, eq=False)
class Job:
    """Strips of one slide to produce.

    Parameters
    ----------
    plan, image
        What to predict, and the image to read.
    strips
        Indices of the strips to produce.
    sinks
        One for each predictor, called with its strips.
    wanted
        Contents of strips.
    quarantined
        Filled with ``(y, x, reason)`` of unreadable tiles, in output pixels.
    """

    plan: SlidePlan
    image: Readable
    strips: frozenset[int]
    sinks: tuple[StripSink, ...]
    wanted: Wanted = Wanted()  # noqa: RUF009 (frozen)
    quarantined: list[Quarantined] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Tiles of one row that are in the current batch; a piece without tiles ends its job."""

    job: "_OpenJob"
    row: int = 0
    tiles: NDArray[np.int64] | None = None
    slots: slice = slice(0)


class TileStream:
    """Predicts the tiles of jobs, one batch for each step of its iterator.

    Batches are filled across rows and slides. All have the same size, the last one padded with
    earlier tiles: libraries choose kernels by batch size, and a pixel must not depend on the
    other tiles in its batch.

    Parameters
    ----------
    jobs
        Slides in processing order; all plans have the same ``tile_px`` and channels.
    predictors
        Members that read the same pixels; each predicts every tile and produces its own strips.
    sizes
        Batch size and buffer limits.
    progress
        Advanced by the number of tiles.
    waits
        Measures waiting times.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        predictors: Sequence[TilePredictor],
        sizes: Sizes,
        *,
        progress: Progress,
        waits: WaitTimes,
    ) -> None:
        self._jobs, self._predictors, self._sizes = jobs, predictors, sizes
        self._progress, self._waits = progress, waits
        self._transfers = Transfers(predictors[0].device)
        self._budgets = [Budget(sizes.strips, waits.writing) for _ in predictors]
        self._pieces: list[_Piece] = []
        self._used = 0
        self._launched: deque[torch.cuda.Event] = deque()

    def __iter__(self) -> Iterator[int]:
        """Yield the number of tiles after each batch."""
        sources, opened = tee(
            SourceRows(job.image, job.plan, job.plan.rows_for(job.strips)) for job in self._jobs
        )
        sizes = self._sizes
        ahead = ReadAhead(sources, self._transfers, readers=sizes.readers, nbytes=sizes.ahead)
        try:
            batch = None
            for job in self._jobs:
                source = next(opened)
                this = _OpenJob(job, self)
                if source.rows:
                    batch = self._batch(job.plan) if batch is None else batch
                    yield from self._predict_rows(this, Band(source, ahead, self._transfers), batch)
                self._pieces.append(_Piece(this))
                if self._used == 0:
                    self._blend([])  # no tile of the job is in the current batch
            if self._pieces and (tiles := self._predict(batch)):
                yield tiles
        finally:
            ahead.close()

    def _batch(self, plan: SlidePlan) -> torch.Tensor:
        side, channels = plan.tile_px, plan.view.channels
        size = (self._sizes.batch, side, side, channels)
        return torch.zeros(size, dtype=torch.uint8, device=self._transfers.device)

    def _predict_rows(self, job: "_OpenJob", band: Band, batch: torch.Tensor) -> Iterator[int]:
        for row in band.source.rows:
            with self._waits.reading():
                band.advance(row)
            tiles = _readable(job.job, band, row)
            for run in even_runs(np.asarray(job.job.plan.xs)[tiles]):
                done = 0
                while done < len(run):
                    count = min(len(run) - done, len(batch) - self._used)
                    slots = slice(self._used, self._used + count)
                    band.cut(row, run[done : done + count], batch[slots])
                    self._pieces.append(_Piece(job, row, tiles[:count], slots))
                    tiles, done, self._used = tiles[count:], done + count, slots.stop
                    if self._used == len(batch):
                        yield self._predict(batch)

    def _predict(self, batch: torch.Tensor | None) -> int:
        """Predict and blend the current batch; return its number of tiles."""
        count, self._used = self._used, 0
        with self._waits.device():
            if batch is None or count == 0:
                self._blend([])
            else:
                self._blend([one.predict(batch) for one in self._predictors])
        if batch is not None and batch.device.type == "cuda":
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._launched.append(event)  # blocking: waiting sleeps, which leaves the core free
            self._launched[-1].record()
            if len(self._launched) > _MAX_QUEUED:
                self._launched.popleft().synchronize()
        tiles = count * len(self._predictors)
        self._progress.advance(tiles)
        self._progress.note(self._waits.summary(tiles))
        return tiles

    def _blend(self, found: Sequence[torch.Tensor]) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            for member in range(len(self._predictors)):
                if piece.tiles is None:
                    piece.job.accumulator(member).finish()
                else:
                    predictions = found[member][piece.slots]
                    piece.job.accumulator(member).add(piece.row, piece.tiles, predictions)

    def accumulator(self, job: Job, member: int) -> Accumulator:
        """Create the accumulator of one member's tiles of a job."""
        return Accumulator(
            job.plan,
            job.strips,
            channels=self._predictors[member].channels,
            wanted=job.wanted,
            transfers=self._transfers,
            budget=self._budgets[member],
            sink=job.sinks[member],
        )


class _OpenJob:
    """A job in progress, whose accumulators are created with its first tile."""

    def __init__(self, job: Job, stream: TileStream) -> None:
        self.job, self._stream = job, stream
        self._accumulators: dict[int, Accumulator] = {}

    def accumulator(self, member: int) -> Accumulator:
        """Return the accumulator of a member."""
        if member not in self._accumulators:
            self._accumulators[member] = self._stream.accumulator(self.job, member)
        return self._accumulators[member]


def _readable(job: Job, band: Band, row: int) -> NDArray[np.int64]:
    """Return the tiles of a row to predict; skip and report those that cannot be decoded."""
    plan = job.plan
    tiles = np.flatnonzero(plan.keep[row])
    damaged = band.damaged(row, tiles)
    for tile, reason in sorted(damaged.items()):
        y, x = plan.ys[row], plan.xs[tile]
        job.quarantined.append((y, x, reason))
        logger.warning("%s: tile at y=%d x=%d left out: %s", plan.slide, y, x, reason)
    return tiles if not damaged else tiles[~np.isin(tiles, list(damaged))]
