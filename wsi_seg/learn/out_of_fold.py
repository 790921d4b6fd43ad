"""Owns the joint output of all folds: the ensemble file, and out-of-fold predictions."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from wsi_seg.batch import require_none
from wsi_seg.config import Recipe
from wsi_seg.config.ensemble import EnsembleFile, EnsembleMember
from wsi_seg.evaluation.scores import Scores
from wsi_seg.files.atomic import atomic_path
from wsi_seg.inference.run import infer_with
from wsi_seg.inference.unfinished import delete_others
from wsi_seg.learn.validate import infer_options, score_slides
from wsi_seg.predict.ensemble import ENSEMBLE, read_model
from wsi_seg.progress import Progress
from wsi_seg.store import SlideStore

__all__ = ["ENSEMBLE", "OUT_OF_FOLD", "predict_out_of_fold", "write_ensemble"]

OUT_OF_FOLD = "oof.zarr"


def write_ensemble(path: Path, members: Sequence[Path]) -> Path:
    """Write an ensemble file, which inference accepts in place of a checkpoint.

    Paths of members are written relative to it.

    Returns
    -------
    path : Path
        The path of the file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    rows = tuple(
        EnsembleMember(checkpoint=Path(os.path.relpath(member, path.parent)).as_posix())
        for member in members
    )
    content = EnsembleFile(members=rows).model_dump(mode="json")
    with atomic_path(path) as file:
        file.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def predict_out_of_fold(
    recipe: Recipe,
    folds: Sequence[tuple[Path, tuple[SlideStore, ...], Path]],
    *,
    progress: Progress,
) -> dict[str, float]:
    """Predict the slides that each fold held out, and save the predictions.

    Existing predictions are reused, so a rerun continues; those of other weights are replaced.

    Parameters
    ----------
    recipe
        Recipe of the last phase.
    folds
        Checkpoint, held-out slides and path of the predictions of each fold.
    progress
        Advanced by tiles.

    Returns
    -------
    dice : dict[str, float]
        Per-slide Dice of each class, averaged over all slides.
    """
    found: list[Scores] = []
    for checkpoint, slides, out in folds:
        model = read_model([checkpoint])
        # Weights may have changed if a finished run was continued for longer.
        delete_others(out, model.identity())
        report = infer_with(model, slides, out, infer_options(recipe, "auto"), progress=progress)
        require_none(report.failures, done=len(report.slides))
        found.append(score_slides(out, slides, recipe.data.label, progress))
    scores = Scores(tuple(score for one in found for score in one.slides))
    return {name: scores.slide_dice(name)[0] for name in scores.class_names}
