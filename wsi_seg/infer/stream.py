"""Owns the stream on one device: rows come up once, tiles are cut, predicted and blended there."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.infer.blend import even_runs
from wsi_seg.infer.plan import Quarantined, SlidePlan
from wsi_seg.infer.source import Band, ReadAhead, SourceRows
from wsi_seg.infer.strips import Accumulator, StripSink, Wanted
from wsi_seg.infer.transfer import Budget, Transfers
from wsi_seg.infer.waits import WaitTimes
from wsi_seg.predict.predictor import TilePredictor
from wsi_seg.progress import Progress
from wsi_seg.reading.readable import Readable

logger = logging.getLogger(__name__)

# Batches that may be launched before the first of them is done: the device always has work, and
# what waits on it stays small.
_LAUNCHED = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each thing the stream may hold.

    Parameters
    ----------
    batch
        Tiles per forward pass.
    ahead
        Bytes of source pixels that are read or waiting.
    strips
        Bytes of finished rows that are coming down or waiting to be written; None is no limit,
        for a sink in the same thread.
    readers
        Reads at a time.
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
        What to predict, and where its pixels come from.
    strips
        Indices of the strips to produce.
    sinks
        Of each predictor: takes its strips.
    wanted
        What strips hold.
    quarantined
        Filled with ``(y, x, reason)`` of tiles that could not be read, in output pixels.
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
    """Predicts the tiles of jobs, one batch at a time; iterate over it to make it continue.

    Batches are filled across rows and slides. Every batch has the same size, the last one
    padded with earlier tiles, because libraries choose kernels by batch size and a pixel must not
    depend on what shares its batch.

    Parameters
    ----------
    jobs
        Slides in the order they are produced; all plans have the same ``tile_px`` and channels.
    predictors
        Each predicts every tile, and gives its own strips: members that read the same pixels.
    sizes
        How much of each thing.
    progress
        Advanced by tiles.
    waits
        Measures what is waited for.
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
                    self._blend([])  # nothing of it is in the current batch
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
        """Predict the current batch and blend it; return its tiles."""
        count, self._used = self._used, 0
        with self._waits.device():
            if batch is None or count == 0:
                self._blend([])
            else:
                self._blend([one.predict(batch) for one in self._predictors])
        if batch is not None and batch.device.type == "cuda":
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._launched.append(event)  # who waits for it sleeps: cores have other work
            self._launched[-1].record()
            if len(self._launched) > _LAUNCHED:
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
        """Begin to sum one member's tiles of a job."""
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
    """A job whose sums exist from its first tile on."""

    def __init__(self, job: Job, stream: TileStream) -> None:
        self.job, self._stream = job, stream
        self._accumulators: dict[int, Accumulator] = {}

    def accumulator(self, member: int) -> Accumulator:
        """Give the sums of a member."""
        if member not in self._accumulators:
            self._accumulators[member] = self._stream.accumulator(self.job, member)
        return self._accumulators[member]


def _readable(job: Job, band: Band, row: int) -> NDArray[np.int64]:
    """Tiles of a row to predict; those that cannot be decoded are left out and reported."""
    plan = job.plan
    tiles = np.flatnonzero(plan.keep[row])
    damaged = band.damaged(row, tiles)
    for tile, reason in sorted(damaged.items()):
        y, x = plan.ys[row], plan.xs[tile]
        job.quarantined.append((y, x, reason))
        logger.warning("%s: tile at y=%d x=%d left out: %s", plan.slide, y, x, reason)
    return tiles if not damaged else tiles[~np.isin(tiles, list(damaged))]
