"""Owns the task of predicting strips of one slide, and the threads that write strips in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.choices import Save
from wsi_seg.classes import ClassMode
from wsi_seg.files.object_folder import Objects, put_all
from wsi_seg.inference.plan import PlannedSlide, Quarantined, SlidePlan, finest
from wsi_seg.inference.resample import rows_under
from wsi_seg.inference.save import StripSaver
from wsi_seg.inference.stream import Job
from wsi_seg.inference.strips import StripSink, Wanted
from wsi_seg.inference.transfer import Budget
from wsi_seg.reading.readable import Readable

# Largest number of strips whose shards are sent to an object store at a time.
_SENT = 4

# Writes a strip, adds what is to be sent, and returns a function that records the strip.
Write = Callable[[Objects], Callable[[], None]]


@dataclass(frozen=True, slots=True, eq=False)
class StripTask:
    """Strips of one slide for one worker, as plain, picklable data.

    Parameters
    ----------
    store
        Slide to read.
    plans
        Plan of each member of the model.
    target
        Unfinished group to write to; its metadata already exist.
    strips
        Indices of the strips.
    save
        Arrays to write.
    mode
        Mode of the classes, see `ClassTable`.
    """

    store: PlannedSlide
    plans: tuple[SlidePlan, ...]
    target: Path
    strips: frozenset[int]
    save: Save = "both"
    mode: ClassMode | None = None

    @property
    def plan(self) -> SlidePlan:
        """The plan that defines the grid of the output."""
        return finest(self.plans)

    @property
    def tiles(self) -> int:
        """Number of tiles to predict, of all members."""
        return sum(plan.tiles_in(self.strips_of(plan)) for plan in self.plans)

    @property
    def pixels(self) -> int:
        """Number of output pixels of the strips."""
        bounds = [self.plan.strips[index] for index in self.strips]
        return sum(y_end - y for y, y_end in bounds) * self.plan.extent.width

    @property
    def wanted(self) -> Wanted:
        """Arrays to compute on the device; `StripSaver` computes the others."""
        if self.plan.native is not None or self.plan.first_pass is not None:
            return Wanted()
        planes = self.mode == "overlapping"
        return Wanted(
            probabilities=self.save != "labels" or planes,
            labels=self.save != "probabilities" and not planes,
            steps=self.save != "labels",
            exclusive=self.mode == "exclusive",
        )

    def saver(self) -> StripSaver:
        """Return an object that writes the strips, from top to bottom."""
        return StripSaver(self.target, self.plan, self.save, mode=self.mode)

    def job(
        self,
        member: int,
        sinks: tuple[StripSink, ...],
        wanted: Wanted,
        quarantined: list[Quarantined],
    ) -> Job:
        """Return the stream job of one member: its strips that this task's strips need."""
        plan = self.plans[member]
        image: Readable = plan.view.image(self.store)
        return Job(plan, image, self.strips_of(plan), sinks, wanted, quarantined)

    def strips_of(self, plan: SlidePlan) -> frozenset[int]:
        """Return the strips of a member's plan that this task's strips need."""
        own = self.plan
        if plan.extent == own.extent:
            return self.strips
        small, full = plan.extent.height, own.extent.height
        found: set[int] = set()
        for index in self.strips:
            rows = rows_under(range(*own.strips[index]), small=small, full=full)
            found |= set(range(rows.start // plan.strip_px, (rows.stop - 1) // plan.strip_px + 1))
        return frozenset(found)


class StripWriter:
    """Writes strips in background threads; `submit` and `drain` re-raise their errors.

    Strips are written one at a time, in order. Shards for an object store are sent meanwhile, those
    of several strips at a time. Strips are recorded in order.

    Parameters
    ----------
    budget
        Limits the bytes of shards on their way to an object store.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="wsi-write")
        self._sending = ThreadPoolExecutor(_SENT, thread_name_prefix="wsi-send")
        self._recording = ThreadPoolExecutor(1, thread_name_prefix="wsi-record")
        self._waiting: deque[Future[Future[None]]] = deque()

    def __enter__(self) -> "StripWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            self._writing.shutdown(wait=True, cancel_futures=True)
            self._sending.shutdown(wait=True, cancel_futures=True)
            self._recording.shutdown(wait=True)  # of all strips that are stored

    def drain(self, *, but: int = 0) -> None:
        """Wait until all but the last ``but`` strips are recorded; raise their errors."""
        while len(self._waiting) > but:
            self._waiting.popleft().result().result()

    def submit(self, write: Write) -> None:
        """Queue a strip; the memory budget of strips bounds the queue.

        Parameters
        ----------
        write
            Writes the strip, and returns a function that records it. Instead of writing to an
            object store it adds to its argument what is to be sent there before the strip is
            recorded.
        """
        self._waiting.append(self._writing.submit(self._write, write))
        while self._waiting and self._waiting[0].done():
            recorded = self._waiting[0].result()
            if not recorded.done():
                return
            recorded.result()
            self._waiting.popleft()

    def _write(self, write: Write) -> Future[None]:
        """Write a strip, and queue what is left to do for it."""
        objects: Objects = {}
        record = write(objects)
        if not objects:
            return self._recording.submit(record)
        nbytes = sum(len(content or b"") for content in objects.values())
        self._budget.take(nbytes)
        sent = self._sending.submit(put_all, objects)
        sent.add_done_callback(lambda _: self._budget.give(nbytes))  # even if it is cancelled
        return self._recording.submit(_record, sent, record)


def _record(sent: Future[None], record: Callable[[], None]) -> None:
    """Record a strip once all of its shards are stored."""
    sent.result()
    record()
