"""Owns the group one slide's prediction is written to: probabilities, label map, journal."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.infer.band import StripSink
from wsi_seg.infer.fitted import restore, rows_under
from wsi_seg.infer.labels import LABEL, label_map
from wsi_seg.infer.plan import STRIP_ROWS, SlidePlan, finest
from wsi_seg.infer.seams import seam_score
from wsi_seg.infer.source import WindowReader
from wsi_seg.infer.stream import Job, Quarantined
from wsi_seg.models import ModelCard
from wsi_seg.progress import Silent
from wsi_seg.store import (
    SlideStore,
    completed,
    create_multiscale,
    discard,
    fill_pyramid,
    finish,
    note_attributes,
    open_multiscale,
    write_strip,
)
from wsi_seg.store.journal import Journal, begun_with
from wsi_seg.store.layout import PARTIAL

_JOURNAL = "journal.jsonl"

# Strips that may wait to be written while the model goes on.
_WRITES_WAITING = 1


@dataclass(frozen=True, slots=True, eq=False)
class StripTask:
    """Strips of one slide that one worker produces; plain data that travels to other processes.

    Parameters
    ----------
    store
        What to read.
    plans
        What each member of the model predicts of it.
    target
        Unfinished group whose metadata exist.
    strips
        Indices of the strips.
    """

    store: SlideStore
    plans: tuple[SlidePlan, ...]
    target: Path
    strips: frozenset[int]

    @property
    def plan(self) -> SlidePlan:
        """Plan whose grid the output has."""
        return finest(self.plans)

    @property
    def windows(self) -> int:
        """Number of windows that the strips need, of all members."""
        return sum(plan.windows_in(self._strips_of(plan)) for plan in self.plans)

    @property
    def pixels(self) -> int:
        """Px of the strips."""
        bounds = [self.plan.strips[index] for index in self.strips]
        return sum(y_end - y for y, y_end in bounds) * self.plan.extent.width

    def write(self, index: int, rows: NDArray[np.uint8]) -> None:
        """Write the probabilities and the label map of one strip."""
        if self.plan.native is None:
            self._write(self.plan.strips[index][0], rows)
            return
        for y, restored in restore(rows, self.plan.native, self.plan.shard_px):
            self._write(y, restored)

    def _write(self, y: int, rows: NDArray[np.uint8]) -> None:
        write_strip(self.target, 0, y, rows)
        write_strip(self.target / "labels" / LABEL, 0, y, label_map(rows))

    def job(self, member: int, sink: StripSink, quarantined: list[Quarantined]) -> Job:
        """Work of one member for the stream: the strips of its plan that lie under ours."""
        plan = self.plans[member]
        reader = WindowReader(plan.view.image(self.store), plan)
        return Job(plan, reader, self._strips_of(plan), sink, quarantined)

    def _strips_of(self, plan: SlidePlan) -> frozenset[int]:
        own = self.plan
        if plan.extent == own.extent:
            return self.strips
        small, full = plan.extent.height, own.extent.height
        found: set[int] = set()
        for index in self.strips:
            rows = rows_under(range(*own.strips[index]), small=small, full=full)
            found |= set(range(rows.start // plan.strip_px, (rows.stop - 1) // plan.strip_px + 1))
        return frozenset(found)


class SlideOutput:
    """Prediction of one slide: begun, continued, or already complete.

    Parameters
    ----------
    store, plans
        The slide, and what each member of the model predicts of it.
    out
        Prediction collection.
    settings
        Everything that decides the prediction's bytes; unfinished work with others is refused.
    overwrite
        Begin anew; a prediction that exists stays until the new one is whole.
    """

    def __init__(
        self,
        store: SlideStore,
        plans: tuple[SlidePlan, ...],
        out: Path,
        settings: Mapping[str, object],
        *,
        overwrite: bool,
    ) -> None:
        self.store, self.plans, self.plan = store, plans, finest(plans)
        self._settings = settings
        self._final = out / store.name
        self._partial = out / PARTIAL / store.name
        if overwrite:
            discard(self._partial)
        # Beside a complete one there is unfinished work where a run that overwrites was stopped.
        self.complete = self._final.exists() and not (overwrite or self._partial.exists())
        folder = self._final if self.complete else self._partial
        if self.complete:
            # How rows were cut into strips depended on the memory of that moment, and is no matter.
            noted = begun_with(folder / _JOURNAL).get("strip_px", settings.get("strip_px"))
            settings = {**settings, "strip_px": noted}
        self._journal = Journal(folder / _JOURNAL, settings, complete=self.complete)

    def create(self, card: ModelCard, training: Mapping[str, object]) -> None:
        """Write the metadata of the group, to be filled strip by strip.

        ``training`` tells how the model was trained. It must not name all slides: each of many
        small images would carry the list.
        """
        attributes = {
            "kind": "prediction",
            "slide": self.store.name,
            "classes": card.classes.to_json(),
            "settings": dict(self._settings),
            "notes": list(self.notes),
            "training": dict(training),
        }
        self._create(self._partial, len(card.classes), attributes)
        label = {"kind": "label", "classes": card.classes.to_json()}
        self._create(self._partial / "labels" / LABEL, None, label)

    def _create(self, path: Path, channels: int | None, attributes: Mapping[str, object]) -> None:
        create_multiscale(
            path,
            extents=completed([self.plan.native or self.plan.extent]),
            channels=channels,
            mpp=self.store.pyramid.mpp,
            downsample=self.plan.downsample,
            attributes=attributes,
            name=path.name,
            shard_px=self.plan.shard_px,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Overrides and repairs of all members, each sentence once."""
        return tuple(dict.fromkeys(note for plan in self.plans for note in plan.notes))

    @property
    def task(self) -> StripTask:
        """Strips that are not on disk yet."""
        every = range(len(self.plan.strips))
        left = frozenset(index for index in every if str(index) not in self._journal.done)
        return StripTask(self.store, self.plans, self._partial, left)

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Windows that could not be read, in this run or an earlier one."""
        found = {
            (int(y), int(x), str(reason))
            for result in self._journal.done.values()
            if isinstance(result, list)
            for y, x, reason in result
        }
        return tuple(sorted(found))

    def record(self, strips: Sequence[int], quarantined: Sequence[Quarantined]) -> None:
        """Note strips that are safely on disk, and windows that had to be left out of them."""
        windows = [list(window) for window in quarantined]
        self._journal.record_all({str(index): windows for index in strips})

    def finish(self) -> None:
        """Compute the coarser levels and give the group its final name, unless that is done."""
        if self._partial.exists():  # else a worker died between this and saying so
            fill_pyramid(self._partial, nearest=False, progress=Silent())
            fill_pyramid(self._partial / "labels" / LABEL, nearest=True, progress=Silent())
            note_attributes(self._partial, self._figures())
            finish(self._partial, self._final, replace=True)
        self.complete = True

    def _figures(self) -> dict[str, object]:
        """Tell what is known at the end, the same however often the work was interrupted."""
        windows = sum(int(plan.keep.sum()) for plan in self.plans)
        skipped = sum(int((~plan.keep).sum()) for plan in self.plans)
        quarantined = list(self.quarantined)
        figures: dict[str, object] = {}
        if (ground := self.plan.ground) is not None:
            known = ground.image.attributes
            first = int(ground.keep.sum())
            quarantined = sorted({*ground.image.quarantined, *quarantined})
            figures = {"seam_score_first": known.get("seam_score"), "windows_spared": ground.spared}
            windows, skipped = windows + first, skipped - first - ground.spared
        return figures | {
            "seam_score": seam_score(open_multiscale(self._partial), self.plan),
            "windows": windows,
            "windows_skipped": skipped,
            "quarantined": [list(window) for window in quarantined],
        }

    @property
    def figures(self) -> Mapping[str, object]:
        """What was noted about the finished prediction, see `_figures`; empty before."""
        return open_multiscale(self._final).attributes if self.complete else {}


def begun_strips(stores: Sequence[SlideStore], out: Path) -> dict[str, int]:
    """Rows of a strip of those slides whose prediction is begun, by their names.

    They were chosen by the memory of another moment, and only the same strips can be continued.
    """
    found = {}
    for store in stores:
        strip_px = begun_with(out / PARTIAL / store.name / _JOURNAL).get("strip_px")
        if isinstance(strip_px, int) and strip_px > 0 and strip_px % STRIP_ROWS == 0:
            found[store.name] = strip_px
    return found


def discard_others(out: Path, identity: object) -> None:
    """Remove the predictions of a collection, begun or complete, that another model has made.

    Parameters
    ----------
    out
        Prediction collection; need not exist.
    identity
        Of the model whose predictions stay; see `members.Model.identity`.
    """
    for journal in [*out.glob(f"*/{_JOURNAL}"), *out.glob(f"{PARTIAL}/*/{_JOURNAL}")]:
        if begun_with(journal).get("checkpoint") != identity:
            discard(journal.parent)


class StripWriter:
    """One thread that writes strips in order while the model goes on; its errors come back."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wsi-write")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "StripWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, write: Callable[[], None]) -> None:
        """Write soon; blocks while too many strips wait, so memory stays bounded."""
        self._waiting.append(self._pool.submit(write))
        while len(self._waiting) > _WRITES_WAITING:
            self._waiting.popleft().result()
