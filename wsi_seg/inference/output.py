"""Owns one process's view of a slide's prediction group, which several processes may fill."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wsi_seg.choices import Save
from wsi_seg.classes import ClassMode
from wsi_seg.files.atomic import remove_folder
from wsi_seg.files.object_folder import for_each
from wsi_seg.files.object_path import object_path
from wsi_seg.geometry import extend_pyramid
from wsi_seg.inference.finish import finish_slide, read_info
from wsi_seg.inference.plan import SlidePlan, finest
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.task import StripTask
from wsi_seg.inference.unfinished import is_complete, mark_again
from wsi_seg.models import ModelCard
from wsi_seg.store import (
    LabelInfo,
    Layout,
    PredictionInfo,
    SlideStore,
    create_group,
    create_multiscale,
    delete,
)
from wsi_seg.store.claims import Claims
from wsi_seg.store.journal import Journal, read_settings
from wsi_seg.store.names import AGAIN, JOURNAL, LABELS, OWN, PARTIAL, PREDICTION_LABEL, SHARED
from wsi_seg.store.own import own_file
from wsi_seg.store.presence import Presence

# Settings that a run chooses when it starts; a complete prediction stays valid if another run
# would choose others.
_CHOSEN = ("strip_px", "batch", "compiled", "tiles")

# Claims of a slide, in addition to those of its parts.
_BEGIN, _FINISH = "begin", "finish"

# Seconds between checks whether another process has finished its step.
_WAIT = 0.05


class SlideOutput:
    """Prediction of one slide: new, to be continued, or already complete.

    Parameters
    ----------
    store, plans
        Slide, and its plan for each member of the model.
    out
        Prediction collection.
    settings
        Everything that determines the bytes of the prediction; unfinished work with other settings
        is an error.
    presence
        Presence of this process; others may work on the same slide.
    save
        Arrays to write: probabilities, labels or both.
    overwrite
        Whether to start over; an existing prediction is kept until the new one is complete.
    parts
        Index of the first strip of each part that a process can claim; ignored if another process
        has started the slide with other parts.
    """

    def __init__(
        self,
        store: SlideStore,
        plans: tuple[SlidePlan, ...],
        out: Path,
        settings: Mapping[str, object],
        presence: Presence,
        *,
        save: Save,
        overwrite: bool,
        parts: Sequence[int] = (0,),
    ) -> None:
        self.store, self.plans, self.plan, self.save = store, plans, finest(plans), save
        self._out, self._settings, self._own = out, settings, presence.id
        self._mode: ClassMode | None = None
        self._info: PredictionInfo | None = None
        self.final, self._partial = out / store.name, out / PARTIAL / store.name
        self._claims = Claims(self._partial / SHARED, presence)
        self._parts, self._taken = tuple(parts), frozenset[int]()
        if overwrite:
            delete(self._partial)
            mark_again(self._partial)
        # An interrupted run with overwrite leaves unfinished work next to a complete prediction.
        self.complete = not overwrite and is_complete(out, store.name)
        if self.complete:
            journal = own_file(self.final, JOURNAL)
            stored = read_settings(journal)
            kept = {key: stored[key] for key in _CHOSEN if key in stored}
            self._journal = Journal(journal, {**settings, **kept}, complete=True)
            # Left by processes that were killed while the slide was being completed.
            for left in (self._partial, self.final / SHARED):
                with suppress(OSError):
                    remove_folder(left)

    def begin(self, card: ModelCard, training: Mapping[str, object]) -> None:
        """Write the metadata of the group, unless another process has written them.

        ``training`` describes how the model was trained. It must not list all training slides: the
        list would be repeated in the metadata of every small image.
        """
        path, self._mode = self._partial / JOURNAL, card.classes.mode
        while not self.complete:
            # Another process may finish the slide, and remove this folder, at any moment.
            with suppress(FileNotFoundError):
                begun = path.is_file()
                is_new = not begun and _made(self._partial)
                for name in (OWN, SHARED):
                    (self._partial / name).mkdir(exist_ok=True)
                if not begun:
                    if not self._claims.take(_BEGIN):
                        time.sleep(_WAIT)
                        continue
                    if is_complete(self._out, self.store.name):
                        delete(self._partial)
                        self.complete = True
                        continue
                    self._create_group(card, training)
                    if not self._still_begins():
                        continue
                parts = None if begun else self._parts
                self._journal = Journal(path, self._settings, owner=self._own, parts=parts)
                if not begun and not self._still_begins():
                    continue
                self._parts = self._journal.parts
                if not is_new:
                    (self._partial / AGAIN).unlink(missing_ok=True)
                return

    def _still_begins(self) -> bool:
        """Return whether this process still holds the claim to create the group."""
        if self._claims.has(_BEGIN):
            return True
        if _BEGIN not in self._claims.held():  # the slide is finished elsewhere
            delete(self._partial)
        return False

    def _create_group(self, card: ModelCard, training: Mapping[str, object]) -> None:
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
        groups: list[tuple[Path, int | None, Mapping[str, object]]] = []
        if self.save == "labels":
            scale = {"mpp": self.store.pyramid.mpp, "downsample": self.plan.downsample}
            create_group(self._partial, {**attributes, **scale})
        else:
            groups.append((self._partial, len(card.classes), attributes))
        if self.save != "probabilities":
            label = self._partial / LABELS / PREDICTION_LABEL
            about = LabelInfo(classes=card.classes, slide_extent=self._slide_extent).to_json()
            groups.append((label, card.classes.planes, about))
        for_each(self._partial, lambda group: self._create(*group), groups)

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

    def take(self, wanted: range, *, left_only: bool = False) -> bool:
        """Claim the parts whose middle strip is in a range and that no running process holds.

        Parameters
        ----------
        wanted
            Indices of strips.
        left_only
            Whether to claim only parts whose process has exited.

        Returns
        -------
        bool
            Whether there is work to do now: strips to predict, or a slide to finish.
        """
        count, took = len(self.plan.strips), set[int]()
        with suppress(FileNotFoundError):  # another process has finished the slide
            for first, after in zip(self._parts, [*self._parts[1:], count], strict=True):
                strips, part = range(first, after), str(first)
                if (first + after - 1) // 2 not in wanted or self._taken.issuperset(strips):
                    continue
                if all(str(index) in self._journal.done for index in strips):
                    continue
                if left_only and not self._claims.is_abandoned(part):
                    continue
                if self._claims.take(part):
                    took.update(strips)
        done = self._journal.refresh()  # other processes may have written these strips
        if not self._journal.is_there:  # another process finished the slide first
            took.clear()
        self._taken |= took
        if not took and is_complete(self._out, self.store.name):
            self.complete = True
        elif len(done) == count:
            return self._claims.holder(_FINISH) is None
        return any(str(index) not in done for index in took)

    @property
    def notes(self) -> tuple[str, ...]:
        """Overrides and repairs of all members, without duplicates."""
        return tuple(dict.fromkeys(note for plan in self.plans for note in plan.notes))

    @property
    def task(self) -> StripTask:
        """Strips that this process has claimed and not yet written."""
        left = frozenset(index for index in self._taken if str(index) not in self._journal.done)
        return StripTask(self.store, self.plans, self._partial, left, self.save, self._mode)

    @property
    def done(self) -> int:
        """Number of strips that all processes have written."""
        return len(self._journal.done)

    def record(self, records: Sequence[StripRecord]) -> None:
        """Record strips that have been written and synced."""
        self._journal.record_all({str(one.index): one.to_json() for one in records})

    def may_finish(self) -> bool:
        """Return whether all strips are written, and this process holds the claim to finish.

        This is the process that writes its strips last.
        """
        every = len(self.plan.strips)
        while not self.complete:
            try:
                mine = self._claims.take(_FINISH)
            except FileNotFoundError:
                mine = False
            if mine and len(self._journal.refresh()) == every:
                return True
            if mine:
                self._claims.give_back(_FINISH)
                self.complete = is_complete(self._out, self.store.name)
                return False
            # Another process is checking whether all strips are written, or is finishing the slide.
            self.complete = is_complete(self._out, self.store.name)
            time.sleep(0 if self.complete else _WAIT)
        return False

    def finish(self) -> None:
        """Finish the slide if all strips are written; see `finish_slide`."""
        if self.may_finish():
            self._info = finish_slide(self.task, self.final, self._journal)
            self.complete = True

    @property
    def info(self) -> PredictionInfo:
        """Metadata of the finished prediction; empty while it is unfinished."""
        if self._info is None and self.complete:
            self._info = read_info(self.final)
        return self._info or PredictionInfo()


def _made(folder: Path) -> bool:
    """Create a folder; return whether it is known to be new."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return object_path(folder) is None  # object stores have no folders
