"""Owns finishing a slide whose strips are all on disk, whichever processes made them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wsi_seg.atomic import remove_folder
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.seams import seam_score
from wsi_seg.inference.task import StripTask
from wsi_seg.progress import Silent
from wsi_seg.store import (
    PredictionInfo,
    commit,
    fill_pyramid,
    open_multiscale,
    update_attributes,
)
from wsi_seg.store.digests import write_digests
from wsi_seg.store.journal import merge_units, read_units
from wsi_seg.store.layout import wsi_seg_attributes
from wsi_seg.store.names import JOURNAL, LABELS, METADATA, PREDICTION_LABEL, SHARED
from wsi_seg.store.own import own_file


def read_records(group: Path) -> dict[int, StripRecord]:
    """Record of each strip of a prediction that is on disk, by its index."""
    units = read_units(own_file(group, JOURNAL))
    return {int(index): StripRecord.from_json(result) for index, result in units.items()}


def read_info(group: Path) -> PredictionInfo:
    """Read what is stored about a prediction."""
    return PredictionInfo.from_json(wsi_seg_attributes(group / METADATA), group)


def finish_slide(task: StripTask, final: Path) -> None:
    """Make what is missing of the coarser levels and give the group its final name.

    After a run without interruption nothing is missing. Where it is done already, nothing is
    done: a worker may have died between this and saying so.

    Parameters
    ----------
    task
        Of the slide; which strips it names does not matter.
    final
        Name to be.
    """
    partial, save = task.target, task.save
    if partial.exists():
        records = read_records(partial)
        label = partial / LABELS / PREDICTION_LABEL
        known = {name: crc for one in records.values() for name, crc in one.checksums.items()}
        inside = f"{LABELS}/{PREDICTION_LABEL}/"
        ours = {name: crc for name, crc in known.items() if not name.startswith(inside)}
        if save != "labels":
            done = {rows for one in records.values() for rows in one.levels}
            ours |= fill_pyramid(partial, nearest=False, progress=Silent(), done=done)
        if save != "probabilities":
            done = {rows for one in records.values() for rows in one.label_levels}
            theirs = fill_pyramid(label, nearest=True, progress=Silent(), done=done)
            theirs |= {
                name.removeprefix(inside): crc
                for name, crc in known.items()
                if name.startswith(inside)
            }
            write_digests(label, theirs)
        info = _with_figures(read_info(partial), task, records)
        update_attributes(partial, info.to_json())
        merge_units(partial / JOURNAL)
        commit(partial, final, replace=True, known=ours)
    # Last: until the group has its name, its claims keep others from finishing it too.
    with suppress(OSError):
        remove_folder(final / SHARED)


def _with_figures(
    info: PredictionInfo, task: StripTask, records: Mapping[int, StripRecord]
) -> PredictionInfo:
    """Add what is known at the end, the same however often the work was interrupted."""
    tiles = sum(int(plan.keep.sum()) for plan in task.plans)
    skipped = sum(int((~plan.keep).sum()) for plan in task.plans)
    steps = {index: one.steps for index, one in records.items() if one.steps is not None}
    score: float | None = None
    if task.save != "labels":
        score = seam_score(open_multiscale(task.target), task.plan, steps)
    quarantined = {tile for record in records.values() for tile in record.quarantined}
    info = replace(
        info,
        tiles=tiles,
        tiles_skipped=skipped,
        quarantined=tuple(sorted(quarantined)),
        seam_score=score,
    )
    if (first := task.plan.first_pass) is None:
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
