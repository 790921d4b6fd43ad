"""Owns finishing a slide whose strips have all been written, by any number of processes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wsi_seg.files.atomic import remove_folder
from wsi_seg.files.object_path import object_path
from wsi_seg.inference.save import StripRecord
from wsi_seg.inference.seams import seam_score
from wsi_seg.inference.task import StripTask
from wsi_seg.progress import Silent
from wsi_seg.store import (
    Multiscale,
    PredictionInfo,
    commit,
    fill_pyramid,
    open_image,
    update_attributes,
)
from wsi_seg.store.group import wsi_seg_attributes
from wsi_seg.store.journal import Journal, merge_units, read_journal
from wsi_seg.store.names import JOURNAL, LABELS, METADATA, PREDICTION_LABEL, SHARED
from wsi_seg.store.pyramid import fill_levels


def read_info(group: Path) -> PredictionInfo:
    """Read the metadata of a prediction."""
    return PredictionInfo.from_json(wsi_seg_attributes(group / METADATA), group)


def finish_slide(
    task: StripTask, final: Path, journal: Journal | None = None
) -> PredictionInfo | None:
    """Write the missing parts of the coarser levels, and rename the group to its final path.

    After a run without interruption no parts are missing. Can be repeated: a worker may have died
    after finishing the slide, but before reporting it.

    Parameters
    ----------
    task
        Task of the slide, with any strips.
    final
        Final path of the group.
    journal
        Journal of the slide, read after all strips were written; None to read it now.

    Returns
    -------
    PredictionInfo or None
        Metadata of the prediction; None if the slide was already finished.
    """
    partial, save, info = task.target, task.save, None
    if partial.is_dir():
        path = partial / JOURNAL
        settings, units = (journal.settings, journal.done) if journal else read_journal(path)
        records = {int(index): StripRecord.from_json(one) for index, one in units.items()}
        known = {name: crc for one in records.values() for name, crc in one.checksums.items()}
        image = open_image(partial)
        if save != "labels":
            done = {rows for one in records.values() for rows in one.levels}
            known |= fill_levels(image.arrays, nearest=False, progress=Silent(), done=done)
        if save != "probabilities":
            done = {rows for one in records.values() for rows in one.label_levels}
            label = f"{LABELS}/{PREDICTION_LABEL}"
            theirs = fill_pyramid(partial / label, nearest=True, progress=Silent(), done=done)
            known |= {f"{label}/{name}": crc for name, crc in theirs.items()}
        info = _with_figures(image, task, records)
        update_attributes(partial, info.to_json())
        merge_units(path, settings, units)
        commit(partial, final, replace=True, known=known)
    # Last: until the group is renamed, its claims keep other processes from finishing it too.
    if object_path(final) is None:
        with suppress(OSError):
            remove_folder(final / SHARED)
    return info


def _with_figures(
    image: Multiscale, task: StripTask, records: Mapping[int, StripRecord]
) -> PredictionInfo:
    """Add counts and scores of the whole slide, which do not depend on interruptions."""
    info = PredictionInfo.from_json(image.attributes, task.target)
    tiles = sum(int(plan.keep.sum()) for plan in task.plans)
    skipped = sum(int((~plan.keep).sum()) for plan in task.plans)
    steps = {index: one.steps for index, one in records.items() if one.steps is not None}
    score: float | None = None
    if task.save != "labels":
        score = seam_score(image, task.plan, steps)
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
