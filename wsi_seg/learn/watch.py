"""Owns what happens around epochs: progress, timing, whole-slide validation, best checkpoint, end.

Validation predicts whole slides by the same path as ``wsi-seg infer`` and scores them by the same
path as ``wsi-seg evaluate``, so the best checkpoint is the one that does best in use.
"""

import dataclasses
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from wsi_seg.config import Recipe
from wsi_seg.evaluate.scores import Scores, evaluate_slide
from wsi_seg.infer.plan import InferOptions
from wsi_seg.infer.run import infer_with
from wsi_seg.learn.history import History, Row
from wsi_seg.learn.task import Batch, SegmentationTask
from wsi_seg.models.checkpoint import ModelCard, save_checkpoint
from wsi_seg.progress import Progress
from wsi_seg.store import SlideStore, open_collection

logger = logging.getLogger(__name__)

BEST = "best.safetensors"
METRICS = "metrics.csv"


class Watch(Callback):
    """Reports, validates, keeps the best network, and ends the run where the recipe says so.

    Parameters
    ----------
    recipe, card
        Of the run; the card has no scores yet.
    validation
        Slides held out; may be empty.
    out
        Folder of the run.
    progress
        Is told of patches.
    """

    def __init__(
        self,
        recipe: Recipe,
        card: ModelCard,
        validation: Sequence[SlideStore],
        *,
        out: Path,
        progress: Progress,
    ) -> None:
        self.history = History()
        self._recipe, self._card, self._validation = recipe, card, tuple(validation)
        self._out, self._progress = out, progress
        self._terms: dict[str, float] = {}
        self._patches = 0
        self._started = self._step_ended = self._waited = 0.0

    def state_dict(self) -> dict[str, object]:
        """Figures so far, for the file that training is taken up from."""
        return dataclasses.asdict(self.history)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take up the figures of an earlier run."""
        self.history = History(**state_dict)  # type: ignore[arg-type]

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """End at once a run that had already ended early."""
        limit = self._recipe.train.max_minutes
        over = limit is not None and self.history.minutes >= limit
        trainer.should_stop = bool(self.history.rows) and (over or self._stale())

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin the epoch's bar and its clocks."""
        title = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._progress.start(title, self._epoch_patches(trainer), "patches")
        self._terms, self._patches, self._waited = {}, 0, 0.0
        self._started = self._step_ended = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the time since the last step as waiting for data."""
        self._waited += time.perf_counter() - self._step_ended

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: dict[str, torch.Tensor],  # type: ignore[override]
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Add the step's figures up."""
        count = len(batch[0])
        self._patches += count
        for name, term in outputs.items():
            self._terms[name] = self._terms.get(name, 0.0) + float(term) * count
        self._progress.advance(count)
        self._step_ended = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Validate, keep the best network, write the figures, decide whether to go on."""
        self._progress.finish()
        seconds = time.perf_counter() - self._started
        row: Row = {"epoch": float(trainer.current_epoch + 1)}
        row |= {name: total / self._patches for name, total in self._terms.items()}
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        row["patches_per_second"] = self._patches / seconds
        row["data_wait"] = self._waited / seconds
        assert isinstance(pl_module, SegmentationTask)
        last = self._ends_after(trainer, seconds / 60)
        if self._validation and (last or row["epoch"] % self._recipe.train.validate_every == 0):
            row |= self._validate(pl_module)
        self.history.rows.append(row)
        self.history.minutes += (time.perf_counter() - self._started) / 60
        if not self._validation or ("val_dice" in row and row is self.history.best):
            scores = {name: value for name, value in row.items() if name.startswith("val_")}
            training = self._card.training | {"epoch": row["epoch"], "loss": row["loss"]}
            card = dataclasses.replace(self._card, scores=scores, training=training)
            save_checkpoint(self._out / BEST, pl_module.network, card)
        self.history.write_csv(self._out / METRICS, self._columns())
        logger.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        trainer.should_stop = trainer.should_stop or last or self._stale()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """End the epoch's bar."""
        self._progress.finish()

    def _stale(self) -> bool:
        """Whether validation has not gained for as long as the recipe bears with."""
        patience = self._recipe.train.early_stop
        return patience is not None and self.history.validations_since_best >= patience

    def _epoch_patches(self, trainer: lightning.Trainer) -> int:
        return int(trainer.num_training_batches) * self._recipe.train.batch_size

    def _ends_after(self, trainer: lightning.Trainer, minutes: float) -> bool:
        """Whether this epoch, which took so long, is the last one."""
        limit = self._recipe.train.max_minutes
        full = trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        return full or (limit is not None and self.history.minutes + 2 * minutes > limit)

    def _validate(self, task: SegmentationTask) -> Row:
        """Per-slide Dice of the slides held out, averaged over slides: of each class, and all."""
        options = InferOptions(
            overlap=self._recipe.train.validation_overlap,
            device=str(task.device),
            precision=self._recipe.train.precision,
        )
        with tempfile.TemporaryDirectory(prefix=".validation-", dir=self._out) as folder:
            found = Path(folder) / "pred.zarr"
            infer_with(
                (task.network, self._card),
                self._validation,
                found,
                options,
                progress=self._progress,
            )
            predictions = open_collection(found)
            scores = Scores(
                tuple(
                    score
                    for store in self._validation
                    for score in evaluate_slide(
                        predictions[store.name],
                        store,
                        label=self._recipe.data.label,
                        progress=self._progress,
                    )
                )
            )
        row = {f"val_dice_{name}": scores.slide_dice(name)[0] for name in scores.class_names}
        return {"val_dice": scores.mean_slide_dice} | row

    def _columns(self) -> list[str]:
        """Names of all figures, in the order of the file."""
        names = dict.fromkeys(name for row in self.history.rows for name in row)
        return list(names)
