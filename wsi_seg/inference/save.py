"""Owns writing finished strips, with their label maps, coarser levels, seam sums and checksums."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.choices import Save
from wsi_seg.classes import ClassMode
from wsi_seg.errors import StoreError
from wsi_seg.files.object_folder import Objects
from wsi_seg.inference.adaptive import merged
from wsi_seg.inference.plan import Quarantined, SlidePlan
from wsi_seg.inference.resample import restore
from wsi_seg.inference.seams import Steps, StepSums
from wsi_seg.inference.strips import Strip
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.store import CoarserLevels, Written
from wsi_seg.store.names import LABELS, PREDICTION_LABEL
from wsi_seg.store.writer import write_strip_of

# Number of values whose seam steps are summed at a time.
_BLOCK = 2**20

# Row of shards: level, and row in the level's grid of shards.
ShardRow = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StripRecord:
    """Journal entry of a strip that has been written and synced.

    Parameters
    ----------
    index
        Index of the strip.
    steps
        Sums for the seam score; None if there is no score.
    levels, label_levels
        Shard rows of coarser levels that this strip completed, of probabilities and of labels.
    checksums
        crc32c of the written shards, by their paths inside the group.
    quarantined
        Unreadable tiles so far, as ``(y, x, reason)`` in output pixels.
    """

    index: int
    steps: Steps | None = None
    levels: tuple[ShardRow, ...] = ()
    label_levels: tuple[ShardRow, ...] = ()
    checksums: Mapping[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        steps = self.steps
        return {
            "index": self.index,
            "steps": None if steps is None else [steps.elsewhere, steps.border, steps.joint],
            "levels": [list(rows) for rows in self.levels],
            "label_levels": [list(rows) for rows in self.label_levels],
            "checksums": dict(self.checksums),
            "quarantined": [list(tile) for tile in self.quarantined],
        }

    @classmethod
    def from_json(cls, document: object) -> "StripRecord":
        """Create a record from the result of `to_json`."""
        values = document if isinstance(document, dict) else {}
        if missing := {one.name for one in fields(cls)} - set(values):
            raise StoreError(
                f"the journal of a prediction is damaged: got a strip without {sorted(missing)}; "
                "start over with --overwrite"
            )
        steps = values["steps"]
        return cls(
            values["index"],
            None if steps is None else Steps(*steps),
            tuple((level, row) for level, row in values["levels"]),
            tuple((level, row) for level, row in values["label_levels"]),
            values["checksums"],
            tuple((y, x, reason) for y, x, reason in values["quarantined"]),
        )


class StripSaver:
    """Writes strips of one slide from top to bottom, probabilities and labels concurrently.

    Parameters
    ----------
    target
        Unfinished group, with its metadata.
    plan
        Plan that defines the grid of the output.
    save
        Arrays to write: probabilities, labels or both.
    mode
        Mode of the classes; see `postprocess.label_map`.
    """

    def __init__(
        self, target: Path, plan: SlidePlan, save: Save, *, mode: ClassMode | None = None
    ) -> None:
        self._plan, self._mode = plan, mode
        self._target, self._save = target, save
        columns = range(plan.extent.width)
        self._sums = StepSums(plan, columns, torch.device("cpu"))

    @cached_property
    def _image(self) -> "_Writer | None":
        return _Writer(self._target, nearest=False) if self._save != "labels" else None

    @cached_property
    def _labels(self) -> "_Writer | None":
        inside = f"{LABELS}/{PREDICTION_LABEL}/"
        is_wanted = self._save != "probabilities"
        return _Writer(self._target, nearest=True, inside=inside) if is_wanted else None

    def write(
        self, strip: Strip, quarantined: Sequence[Quarantined], objects: Objects | None = None
    ) -> StripRecord:
        """Write a strip, and the shard rows of coarser levels that it completes.

        Parameters
        ----------
        strip
            The strip.
        quarantined
            Tiles that could not be read so far.
        objects
            In an object store, receives the shards for `put_all`, to be written before the record
            is; None to write them now.
        """
        plan, unread = self._plan, tuple(quarantined)
        if plan.native is not None:
            record = StripRecord(strip.index, quarantined=unread)
            for y, rows in restore(strip.at_size(plan.native), plan.native, plan.shard_px):
                labels = label_map(rows, self._mode)
                # One strip is the whole slide, whose shards memory need not hold.
                record = self._write(record, y, rows, labels, None)
            return record
        strip = self._completed(strip, unread)
        record = StripRecord(strip.index, strip.steps, quarantined=unread)
        y = plan.strips[strip.index][0]
        return self._write(record, y, strip.probabilities, strip.labels, objects)

    def _completed(self, strip: Strip, quarantined: Sequence[Quarantined]) -> Strip:
        """Compute labels and seam sums that the device did not, as for ensembles or two passes."""
        rows, labels, steps = strip.probabilities, strip.labels, strip.steps
        if rows is None or (labels is not None and steps is not None):
            return strip
        y = self._plan.strips[strip.index][0]
        rows = merged(self._plan, y, rows, quarantined)
        if labels is None and self._labels is not None:
            labels = label_map(rows, self._mode)
        if steps is None and self._image is not None:
            steps = self._steps(y, rows)
        return replace(strip, probabilities=rows, labels=labels, steps=steps)

    def _steps(self, y: int, rows: NDArray[np.uint8]) -> Steps:
        follows = self._sums.follows(y)
        sums = np.zeros(3, dtype=np.int64)
        portion = max(1, _BLOCK // rows[0].size)
        for top in range(0, len(rows), portion):
            part = torch.from_numpy(rows[top : top + portion]).permute(2, 0, 1)
            sums += self._sums.of(y + top, part, first=top == 0).numpy()
        elsewhere, border, joint = sums.tolist()
        return Steps(elsewhere, border, joint if follows else None)

    def _write(
        self,
        record: StripRecord,
        y: int,
        rows: NDArray[np.uint8] | None,
        labels: NDArray[np.uint8] | None,
        objects: Objects | None,
    ) -> StripRecord:
        """Write rows of both, and the coarser shard rows they complete, concurrently."""
        image, label = self._image, self._labels
        with ThreadPoolExecutor(4) as threads:
            written = [
                (writer is image, threads.submit(part, y, values, objects))
                for writer, values in ((image, rows), (label, labels))
                if writer is not None and values is not None
                for part in (writer.finest, writer.coarser)
            ]
        for of_image, future in written:
            found = future.result()
            complete = tuple(found.rows)
            record = replace(
                record,
                levels=record.levels + (complete if of_image else ()),
                label_levels=record.label_levels + (() if of_image else complete),
                checksums={**record.checksums, **found.checksums},
            )
        return record


class _Writer:
    """Writes one multiscale of the group: level 0, and completed shard rows of coarser levels."""

    def __init__(self, target: Path, *, nearest: bool, inside: str = "") -> None:
        self._inside = inside
        self._coarser = CoarserLevels(target / inside, nearest=nearest)

    def finest(self, y: int, rows: NDArray[np.uint8], objects: Objects | None) -> Written:
        """Write rows of level 0."""
        return self._named(Written([], write_strip_of(self._coarser.finest, y, rows, objects)))

    def coarser(self, y: int, rows: NDArray[np.uint8], objects: Objects | None) -> Written:
        """Write the shard rows of coarser levels that these rows of level 0 complete."""
        return self._named(self._coarser.put(y, rows, objects))

    def _named(self, written: Written) -> Written:
        """Make the paths of shards relative to the slide's group."""
        named = {self._inside + name: crc for name, crc in written.checksums.items()}
        return Written(written.rows, named)
