"""Owns the group one slide's prediction is written to: probabilities, label map, journal."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_seg.choices import Save
from wsi_seg.classes import ClassMode
from wsi_seg.inference.options import STRIP_ROWS
from wsi_seg.inference.plan import PlannedSlide, Quarantined, SlidePlan, finest
from wsi_seg.inference.resample import rows_under
from wsi_seg.inference.save import StripRecord, StripSaver
from wsi_seg.inference.seams import seam_score
from wsi_seg.inference.stream import Job
from wsi_seg.inference.strips import StripSink, Wanted
from wsi_seg.models import ModelCard
from wsi_seg.progress import Silent
from wsi_seg.reading.readable import Readable
from wsi_seg.store import (
    LabelInfo,
    Layout,
    PredictionInfo,
    SlideStore,
    commit,
    create_group,
    create_multiscale,
    delete,
    extend_pyramid,
    fill_pyramid,
    open_multiscale,
    update_attributes,
)
from wsi_seg.store.digests import write_digests
from wsi_seg.store.journal import Journal, read_settings
from wsi_seg.store.layout import wsi_seg_attributes
from wsi_seg.store.names import JOURNAL, LABELS, METADATA, PARTIAL, PREDICTION_LABEL

# Settings that a run chooses at its start; a complete prediction stays valid when they would be
# chosen differently now.
_CHOSEN = ("strip_px", "batch", "compiled", "tiles")


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
    save
        What is written.
    mode
        Of the classes, see `ClassTable`.
    """

    store: PlannedSlide
    plans: tuple[SlidePlan, ...]
    target: Path
    strips: frozenset[int]
    save: Save = "both"
    mode: ClassMode | None = None

    @property
    def plan(self) -> SlidePlan:
        """Plan whose grid the output has."""
        return finest(self.plans)

    @property
    def tiles(self) -> int:
        """Number of tiles that the strips need, of all members."""
        return sum(plan.tiles_in(self.strips_of(plan)) for plan in self.plans)

    @property
    def pixels(self) -> int:
        """Pixels of the strips."""
        bounds = [self.plan.strips[index] for index in self.strips]
        return sum(y_end - y for y, y_end in bounds) * self.plan.extent.width

    @property
    def wanted(self) -> Wanted:
        """What is made of rows on the device; what is not is made by `StripSaver`."""
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
        """Make what writes the strips, from top to bottom."""
        return StripSaver(self.target, self.plan, self.save, mode=self.mode)

    def job(
        self,
        member: int,
        sinks: tuple[StripSink, ...],
        wanted: Wanted,
        quarantined: list[Quarantined],
    ) -> Job:
        """Work of one member for the stream: the strips of its plan that are under ours."""
        plan = self.plans[member]
        image: Readable = plan.view.image(self.store)
        return Job(plan, image, self.strips_of(plan), sinks, wanted, quarantined)

    def strips_of(self, plan: SlidePlan) -> frozenset[int]:
        """Find the strips of a member's plan that are under ours."""
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
    """Prediction of one slide: new, continued, or already complete.

    Parameters
    ----------
    store, plans
        The slide, and what each member of the model predicts of it.
    out
        Prediction collection.
    settings
        Everything that decides the prediction's bytes; unfinished work with others is refused.
    save
        What is written.
    mode
        Of the classes, see `ClassTable`.
    overwrite
        Start over; a prediction that exists stays until the new one is complete.
    """

    def __init__(
        self,
        store: SlideStore,
        plans: tuple[SlidePlan, ...],
        out: Path,
        settings: Mapping[str, object],
        *,
        save: Save,
        overwrite: bool,
        mode: ClassMode | None = None,
    ) -> None:
        self.store, self.plans, self.plan, self.save = store, plans, finest(plans), save
        self._settings, self._mode = settings, mode
        self._final = out / store.name
        self._partial = out / PARTIAL / store.name
        if overwrite:
            delete(self._partial)
        # A run that overwrites and was stopped leaves unfinished work next to a complete one.
        self.complete = self._final.exists() and not (overwrite or self._partial.exists())
        folder = self._final if self.complete else self._partial
        if self.complete:
            stored = read_settings(folder / JOURNAL)
            settings = {**settings, **{key: stored[key] for key in _CHOSEN if key in stored}}
        self._journal = Journal(folder / JOURNAL, settings, complete=self.complete)

    def create(self, card: ModelCard, training: Mapping[str, object]) -> None:
        """Write the metadata of the group, to be filled strip by strip.

        ``training`` says how the model was trained. It must not name all slides: each of many
        small images would carry the list.
        """
        attributes = PredictionInfo(
            slide=self.store.name,
            slide_extent=self._slide_extent,
            classes=card.classes,
            saved=self.save,
            settings=self._settings,
            notes=self.notes,
            training=training,
            min_object_um2=card.min_object_um2,
        ).to_json()
        if self.save == "labels":
            scale = {"mpp": self.store.pyramid.mpp, "downsample": self.plan.downsample}
            create_group(self._partial, {**attributes, **scale})
        else:
            self._create(self._partial, len(card.classes), attributes)
        if self.save != "probabilities":
            label = self._partial / LABELS / PREDICTION_LABEL
            self._create(
                label,
                card.classes.planes,
                LabelInfo(classes=card.classes, slide_extent=self._slide_extent).to_json(),
            )

    @property
    def _slide_extent(self) -> tuple[int, int]:
        """Height and width of the slide."""
        extent = self.store.pyramid.extent
        return extent.height, extent.width

    def _create(self, path: Path, channels: int | None, attributes: Mapping[str, object]) -> None:
        layout = Layout.of(
            extend_pyramid([self.plan.native or self.plan.extent]),
            channels=channels,
            mpp=self.store.pyramid.mpp,
            downsample=self.plan.downsample,
            shard_px=self.plan.shard_px,
        )
        create_multiscale(path, layout, attributes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Overrides and repairs of all members, each sentence once."""
        return tuple(dict.fromkeys(note for plan in self.plans for note in plan.notes))

    @property
    def task(self) -> StripTask:
        """Strips that are not on disk yet."""
        every = range(len(self.plan.strips))
        left = frozenset(index for index in every if str(index) not in self._journal.done)
        return StripTask(self.store, self.plans, self._partial, left, self.save, self._mode)

    @property
    def records(self) -> dict[int, StripRecord]:
        """Record of each finished strip, in this run or an earlier one."""
        return {
            int(index): StripRecord.from_json(result)
            for index, result in self._journal.done.items()
        }

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Tiles that could not be read, in this run or an earlier one."""
        found = {tile for record in self.records.values() for tile in record.quarantined}
        return tuple(sorted(found))

    def record(self, records: Sequence[StripRecord]) -> None:
        """Record strips that are safely on disk."""
        self._journal.record_all({str(one.index): one.to_json() for one in records})

    def finish(self) -> None:
        """Make what is missing of the coarser levels and give the group its final name.

        After a run without interruption nothing is missing. Where it is done already, nothing is
        done: a worker may have died between this and saying so.
        """
        if self._partial.exists():
            records = self.records
            label = self._partial / LABELS / PREDICTION_LABEL
            known = {name: crc for one in records.values() for name, crc in one.checksums.items()}
            inside = f"{LABELS}/{PREDICTION_LABEL}/"
            ours = {name: crc for name, crc in known.items() if not name.startswith(inside)}
            if self.save != "labels":
                done = {rows for one in records.values() for rows in one.levels}
                ours |= fill_pyramid(self._partial, nearest=False, progress=Silent(), done=done)
            if self.save != "probabilities":
                done = {rows for one in records.values() for rows in one.label_levels}
                theirs = fill_pyramid(label, nearest=True, progress=Silent(), done=done)
                theirs |= {
                    name.removeprefix(inside): crc
                    for name, crc in known.items()
                    if name.startswith(inside)
                }
                write_digests(label, theirs)
            info = self._with_figures(_read_info(self._partial), records)
            update_attributes(self._partial, info.to_json())
            commit(self._partial, self._final, replace=True, known=ours)
        self.complete = True

    def _with_figures(
        self, info: PredictionInfo, records: Mapping[int, StripRecord]
    ) -> PredictionInfo:
        """Add what is known at the end, the same however often the work was interrupted."""
        tiles = sum(int(plan.keep.sum()) for plan in self.plans)
        skipped = sum(int((~plan.keep).sum()) for plan in self.plans)
        steps = {index: one.steps for index, one in records.items() if one.steps is not None}
        score: float | None = None
        if self.save != "labels":
            score = seam_score(open_multiscale(self._partial), self.plan, steps)
        info = replace(
            info,
            tiles=tiles,
            tiles_skipped=skipped,
            quarantined=self.quarantined,
            seam_score=score,
        )
        if (first := self.plan.first_pass) is None:
            return info
        before = PredictionInfo.from_json(first.image.attributes, first.image.path)
        count = int(first.keep.sum())
        return replace(
            info,
            tiles=tiles + count,
            tiles_skipped=skipped - count - first.skipped,
            tiles_skipped_by_first_pass=first.skipped,
            quarantined=tuple(sorted({*before.quarantined, *info.quarantined})),
            seam_score_first=before.seam_score,
        )

    @property
    def info(self) -> PredictionInfo:
        """What is stored about the finished prediction; empty before."""
        return _read_info(self._final) if self.complete else PredictionInfo()


def _read_info(group: Path) -> PredictionInfo:
    return PredictionInfo.from_json(wsi_seg_attributes(group / METADATA), group)


@contextmanager
def overwriting(stores: Sequence[SlideStore], out: Path) -> Iterator[None]:
    """Mark the predictions that are made again, so that a later run continues without `overwrite`.

    A prediction that has unfinished work next to it, even an empty folder, does not count as
    complete.
    """
    folders = [out / PARTIAL / store.name for store in stores if (out / store.name).exists()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    yield
    for folder in folders:
        with suppress(OSError):  # slides that could not be planned keep what they have
            folder.rmdir()


def unfinished_settings(stores: Sequence[SlideStore], out: Path) -> dict[str, Mapping[str, object]]:
    """Read the settings of those slides whose prediction is unfinished, by their names.

    Strips, batch and whether networks are compiled were chosen for the memory and the device at the
    time; work continues with the same ones only.
    """
    found = {}
    for store in stores:
        settings = read_settings(out / PARTIAL / store.name / JOURNAL)
        strip_px = settings.get("strip_px")
        if isinstance(strip_px, int) and strip_px > 0 and strip_px % STRIP_ROWS == 0:
            found[store.name] = settings
    return found


def delete_others(out: Path, identity: object) -> None:
    """Remove the predictions of a collection, unfinished or complete, that another model made.

    Parameters
    ----------
    out
        Prediction collection; need not exist.
    identity
        Of the model whose predictions stay; see `ensemble.Model.identity`.
    """
    for journal in [*out.glob(f"*/{JOURNAL}"), *out.glob(f"{PARTIAL}/*/{JOURNAL}")]:
        if read_settings(journal).get("checkpoint") != identity:
            delete(journal.parent)


class StripWriter:
    """One thread that writes strips in order while the model continues; it keeps errors."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wsi-write")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "StripWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def drain(self) -> None:
        """Wait until all is written; raise what went wrong."""
        while self._waiting:
            self._waiting.popleft().result()

    def submit(self, write: Callable[[], None]) -> None:
        """Write soon; how much may wait is bounded by the memory of strips."""
        self._waiting.append(self._pool.submit(write))
        while self._waiting[0].done():
            self._waiting.popleft().result()
            if not self._waiting:
                return
