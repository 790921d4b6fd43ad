"""Owns the training run: all rounds, folds and phases of a recipe, resumable."""

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from wsi_seg.config import Recipe, load_recipe, save_recipe
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.learn.average import average_checkpoints, choose_soup
from wsi_seg.learn.callback import METRICS, STOPPED
from wsi_seg.learn.fit import Fitted, fit
from wsi_seg.learn.out_of_fold import ENSEMBLE, OUT_OF_FOLD, predict_out_of_fold, write_ensemble
from wsi_seg.learn.resume import LAST
from wsi_seg.learn.rounds import mine_round, recipes_of_rounds, round_name
from wsi_seg.learn.sampler import require_classes
from wsi_seg.learn.split import Split, split_slides
from wsi_seg.learn.validate import BEST, Validation
from wsi_seg.models import read_card
from wsi_seg.notebook import lines_html
from wsi_seg.progress import Progress, Silent

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
AVERAGE = "average.safetensors"

# Keys of the train section that may change when a run is resumed: they affect its speed and length
# only.
_MAY_CHANGE = {"workers", "max_minutes", "save_minutes", "tensorboard"}


@dataclass(frozen=True, slots=True)
class FoldReport:
    """Result of one fold.

    Parameters
    ----------
    checkpoint
        Checkpoint of the best network of the last phase.
    members
        Checkpoints that the fold contributes to an ensemble.
    averaged
        Names of the networks whose mean is the only member; empty if they were not averaged.
    metrics
        CSV file with the metrics of each epoch of the last phase.
    epochs, best_epoch
        Number of epochs of the last phase, and epoch of the checkpoint, from 1.
    monitor, score
        Metric that selected the epoch, and its value; None without validation.
    train_slides, validation_slides
        Numbers of slides.
    patches_per_second, data_wait
        Throughput of the last epoch, and fraction of its time spent waiting for patches.
    stopped
        Messages about phases that stopped early.
    """

    checkpoint: Path
    members: tuple[Path, ...]
    averaged: tuple[str, ...]
    metrics: Path
    epochs: int
    best_epoch: int
    monitor: str
    score: float | None
    train_slides: int
    validation_slides: int
    patches_per_second: float
    data_wait: float
    stopped: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """Score for comparing folds; higher is better."""
        value = self.score or 0.0
        return -value if self.monitor == "val_loss" else value


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Result of a training run.

    Parameters
    ----------
    folds
        Result of each fold; a single one without cross-validation.
    ensemble
        Ensemble file of all members; None if there is only one.
    parameters
        Number of weights of the network.
    out_of_fold_dice
        Per-slide Dice of each class over all out-of-fold predictions; empty without them.
    seconds
        Duration of this call.
    """

    folds: tuple[FoldReport, ...]
    ensemble: Path | None
    parameters: int
    out_of_fold_dice: dict[str, float]
    seconds: float

    @property
    def best(self) -> FoldReport:
        """Fold with the best score on its own held-out slides."""
        return max(self.folds, key=lambda fold: fold.gain)

    @property
    def checkpoint(self) -> Path:
        """Checkpoint of the best fold."""
        return self.best.checkpoint

    @property
    def model(self) -> Path:
        """Model for inference: the ensemble if there is one, otherwise the only member."""
        return self.ensemble or self.best.members[0]

    def lines(self) -> list[str]:
        """Summarise the run as lines of text."""
        lines = []
        for fold in self.folds:
            score = "no slide was held out, so this is the last epoch"
            if fold.score is not None:
                score = f"{fold.monitor} {fold.score:.4f} in epoch {fold.best_epoch}"
            speed = f"{fold.patches_per_second:.1f} patches/s, {fold.data_wait:.0%} waiting"
            epochs, slides = counted(fold.epochs, "epoch"), counted(fold.train_slides, "slide")
            lines += [
                f"{epochs} on {slides} ({speed} for data)",
                f"{fold.checkpoint}: {score}",
            ]
            if fold.averaged:
                lines.append(f"{fold.members[0]}: mean of {', '.join(fold.averaged)}")
        for name, dice in self.out_of_fold_dice.items():
            lines.append(f"{name}: out-of-fold Dice {dice:.4f}, mean over slides")
        stopped = [f"{fold.checkpoint}: {text}" for fold in self.folds for text in fold.stopped]
        return [*lines, f"{self.parameters} weights, {self.seconds:.0f} s", *stopped]

    def _repr_html_(self) -> str:
        return lines_html(self.lines())

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values, with those of the best fold at the top level, too."""
        folds = [
            asdict(fold)
            | {
                "checkpoint": str(fold.checkpoint),
                "metrics": str(fold.metrics),
                "members": [str(path) for path in fold.members],
            }
            for fold in self.folds
        ]
        return folds[self.folds.index(self.best)] | {
            "folds": folds,
            "ensemble": None if self.ensemble is None else str(self.ensemble),
            "parameters": self.parameters,
            "out_of_fold_dice": self.out_of_fold_dice,
            "seconds": self.seconds,
        }


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    callbacks: Sequence[lightning.Callback] = (),
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> TrainReport:
    """Train by a recipe, or resume the same run where it was stopped.

    A run without folds and phases writes ``best.safetensors`` (with a copy of its card as
    ``best.json``), ``last.ckpt`` (the state for resuming), ``recipe.yaml`` (with all defaults) and
    ``metrics.csv``. Each phase writes all but the recipe into a subfolder with its name; each fold
    has its phases in ``fold_0``, ``fold_1`` ... ``ensemble.yaml`` lists the members, and
    ``fold_0/oof.zarr`` ... contain the out-of-fold predictions.

    With ``rounds``, each round is a separate run in ``round_1``, ``round_2`` ..., and the report is
    that of the last.

    Parameters
    ----------
    recipe
        From `load_recipe`.
    out
        Folder of the run.
    callbacks
        Additional Lightning callbacks, called after the built-in one; the same objects are used in
        all folds and phases.
    progress
        Advanced by patches, and by tiles in validation.

    Returns
    -------
    TrainReport
        The best network of each fold, and its score.

    Raises
    ------
    ConfigError
        If the recipe does not match its slides, or the folder has a run of another recipe.
    CheckpointError
        If the initial weights cannot be loaded, or a saved state is damaged.
    TrainingError
        If the loss is not finite, or the device has too little memory.
    OutputError
        If ``out`` cannot be written.

    Examples
    --------
    >>> train(load_recipe("recipe.yaml"), "run").checkpoint  # doctest: +SKIP
    """
    if recipe.rounds is None:
        return _train(
            recipe, split_slides(recipe), Path(out), callbacks=callbacks, progress=progress
        )
    _prepare_folder(recipe, Path(out))
    folder, report = Path(), None
    for number, one in enumerate(recipes_of_rounds(recipe, Path(out))):
        if number:
            mine_round(recipe, folder, progress)
        folder = Path(out) / round_name(number)
        # Split by the recipe's own seed, so that folds are the same in all rounds: networks start
        # from those of the previous round, which must not have seen the held-out slides.
        splits = split_slides(recipe)
        report = _train(one, splits, folder, callbacks=callbacks, progress=progress)
    assert report is not None
    return report


def _train(
    recipe: Recipe,
    splits: Sequence[Split],
    out: Path,
    *,
    callbacks: Sequence[lightning.Callback],
    progress: Progress,
) -> TrainReport:
    """Train all folds and phases of one round."""
    started = time.perf_counter()
    _prepare_folder(recipe, out)
    folders = [out / f"fold_{index}" for index in range(len(splits))]
    if recipe.data.folds is None:
        folders = [out]
    else:
        _require_classes(splits, recipe)
    fitted = [
        _train_fold(recipe.of_fold(index), split, folder, callbacks=callbacks, progress=progress)
        for index, (split, folder) in enumerate(zip(splits, folders, strict=True))
    ]
    if not _is_first_rank():
        raise SystemExit(0)  # the first rank continues alone
    reports = tuple(
        _fold_report(recipe, split, folder, done, progress)
        for split, folder, done in zip(splits, folders, fitted, strict=True)
    )
    members = [path for report in reports for path in report.members]
    ensemble = write_ensemble(out / ENSEMBLE, members) if len(members) > 1 else None
    dice: dict[str, float] = {}
    if recipe.data.folds is not None and recipe.ensemble.out_of_fold:
        dice = predict_out_of_fold(
            recipe.stages[-1],
            [
                (report.checkpoint, split.validation, folder / OUT_OF_FOLD)
                for report, split, folder in zip(reports, splits, folders, strict=True)
            ],
            progress=progress,
        )
    return TrainReport(
        folds=reports,
        ensemble=ensemble,
        parameters=fitted[0].parameters,
        out_of_fold_dice=dice,
        seconds=time.perf_counter() - started,
    )


def _train_fold(
    recipe: Recipe,
    split: Split,
    folder: Path,
    *,
    callbacks: Sequence[lightning.Callback],
    progress: Progress,
) -> Fitted:
    """Train the phases of a fold, each from the best network of the previous one."""
    names = [phase.name for phase in recipe.phases] or ["."]
    start: Path | None = None
    for name, stage in zip(names, recipe.stages, strict=True):
        phase = folder / name
        _make(phase)
        logger.info("training in %s", phase)
        fitted = fit(stage, split, phase, start=start, progress=progress, callbacks=callbacks)
        start = fitted.best
    return fitted


def _fold_report(
    recipe: Recipe, split: Split, folder: Path, fitted: Fitted, progress: Progress
) -> FoldReport:
    """Copy the best network of a fold into its folder, and report the result."""
    if fitted.best.parent != folder:
        for suffix in (".safetensors", ".json"):
            shutil.copyfile(fitted.best.with_suffix(suffix), (folder / BEST).with_suffix(suffix))
    members = fitted.top
    averaged: tuple[str, ...] = ()
    if recipe.ensemble.average and len(members) > 1:
        averaged = _average(recipe, split, folder / AVERAGE, fitted, progress)
        members = (folder / AVERAGE,)
    rows = fitted.history.rows
    best = fitted.history.best or rows[-1]
    return FoldReport(
        checkpoint=folder / BEST,
        members=members,
        averaged=averaged,
        metrics=fitted.best.parent / METRICS,
        epochs=len(rows),
        best_epoch=int(best["epoch"]),
        monitor=fitted.history.monitor,
        score=best.get(fitted.history.monitor),
        train_slides=len(split.train),
        validation_slides=len(split.validation),
        patches_per_second=rows[-1]["patches_per_second"],
        data_wait=rows[-1]["data_wait"],
        stopped=tuple(path.read_text(encoding="utf-8") for path in sorted(folder.rglob(STOPPED))),
    )


def _average(
    recipe: Recipe, split: Split, out: Path, fitted: Fitted, progress: Progress
) -> tuple[str, ...]:
    """Write the mean of the kept networks, or of a greedy soup of them; return their names."""
    if recipe.ensemble.average != "greedy":
        average_checkpoints(fitted.top, out)
        return tuple(path.stem for path in fitted.top)
    card = read_card(fitted.top[0])
    validation = Validation(recipe.stages[-1], card, split.validation, out.parent)

    def score(network: nn.Module) -> float:
        gain = fitted.history.gain(validation.score(network, "auto", progress))
        assert gain is not None, "validation has the monitored metric"
        return gain

    chosen, gain = choose_soup(fitted.top, score)
    # The gain of a loss is its negative.
    average_checkpoints(chosen, out, scores={fitted.history.monitor: abs(gain)})
    return tuple(path.stem for path in chosen)


def _require_classes(splits: Sequence[Split], recipe: Recipe) -> None:
    """Check that every fold has every class before training the first."""
    for index, split in enumerate(splits):
        try:
            require_classes(split.train, recipe)
        except ConfigError as error:
            raise ConfigError(f"fold {index} cannot be trained: {error}") from error


def _prepare_folder(recipe: Recipe, out: Path) -> None:
    """Create the folder with the recipe, or check that it belongs to the same recipe."""
    _make(out)
    if (out / RECIPE).exists() and any(out.rglob(LAST)):
        changed = _differences(load_recipe(out / RECIPE), recipe)
        if changed:
            raise ConfigError(
                f"{out} has a run of another recipe; these differ: {', '.join(changed)}; use "
                "another --out, or delete the folder"
            )
        logger.info("resuming the run in %s", out)
    if _is_first_rank():
        save_recipe(recipe, out / RECIPE)


def _is_first_rank() -> bool:
    """Return whether this is the first of the processes that train together."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.of(folder, error, step="make folder") from error


def _differences(old: Recipe, new: Recipe) -> list[str]:
    drop = {"train": _MAY_CHANGE}
    before, after = old.model_dump(exclude=drop), new.model_dump(exclude=drop)
    return [key for key in before if before[key] != after[key]]
