"""Owns the training callback: progress, timing, saving, validation and stopping."""

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from wsi_seg.files.atomic import write_atomic
from wsi_seg.learn.history import History, Row
from wsi_seg.learn.pace import MEASURED_AFTER, end_in, steps_left
from wsi_seg.learn.patch_losses import WORST, PatchLosses, write_worst
from wsi_seg.learn.resume import Position, save_state
from wsi_seg.learn.task import Batch, SegmentationTask
from wsi_seg.learn.validate import Validation
from wsi_seg.progress import Progress

logger = logging.getLogger(__name__)

METRICS = "metrics.csv"
# Why training stopped early; absent if it did not.
STOPPED = "stopped.txt"

# Fraction of an epoch spent waiting for patches above which to warn.
_MAX_WAIT = 0.1

# Fraction of the time that saving at the ends of epochs may take.
_MAX_SAVING = 0.05


@dataclasses.dataclass
class _Epoch:
    """Running sums of the current epoch, including the part before a resume."""

    terms: dict[str, float] = dataclasses.field(default_factory=dict)
    patches: int = 0
    seconds: float = 0.0
    waited: float = 0.0


class TrainingCallback(Callback):
    """Reports progress, saves, validates, keeps the best networks and stops the run.

    Parameters
    ----------
    validation
        Held-out slides, and recipe and folder of the run.
    patch_losses
        Records the loss of each patch.
    progress
        Advanced by patches.
    """

    def __init__(
        self, validation: Validation, patch_losses: PatchLosses, *, progress: Progress
    ) -> None:
        self.history = History(monitor=f"val_{validation.recipe.train.monitor}")
        self._patch_losses = patch_losses
        self._validation, self._recipe = validation, validation.recipe
        self._out: Path = validation.out
        self._progress = progress
        self._epoch = _Epoch()
        self._position = Position()
        self._ended = False
        self._step_ended = self._saved = self._save_took = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save for resuming."""
        return {
            "history": dataclasses.asdict(self.history),
            "epoch": dataclasses.asdict(self._epoch),
            "patch_losses": self._patch_losses.state(),
            "ended": self._ended,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.history = History(**state_dict["history"])
        self._epoch = _Epoch(**state_dict["epoch"])
        self._patch_losses.load_state(state_dict["patch_losses"])
        self._ended = state_dict["ended"]

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Save the position of the next batch."""
        self._position.put(checkpoint)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop again if the run had stopped early; otherwise resume its progress bar and timers."""
        trainer.should_stop = self._ended
        self._step_ended = self._saved = time.perf_counter()
        if self._epoch.patches:
            self._start_bar(trainer)
            self._progress.advance(self._epoch.patches)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the progress bar and timers of the epoch."""
        self._start_bar(trainer)
        self._patch_losses.start()
        self._epoch = _Epoch()
        self._step_ended = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Add the time since the last step to the data waiting time."""
        self._epoch.waited += self._lap()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: dict[str, Any],  # type: ignore[override]
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Accumulate the metrics of the step, and save if it is due."""
        epoch, count = self._epoch, len(batch[0]) * trainer.world_size
        epoch.patches += count
        for name, term in outputs["terms"].items():
            epoch.terms[name] = epoch.terms.get(name, 0.0) + float(term) * count
        losses = pl_module.all_gather(outputs["patches"])
        assert isinstance(losses, torch.Tensor)
        self._patch_losses.record(losses)
        self._progress.advance(count)
        epoch.seconds += self._lap()
        done = batch_idx + 1
        whole_step = done % self._recipe.train.accumulate == 0
        if whole_step:
            self._keep_pace(trainer)
        # After the last batch, the state is saved with the epoch's validation.
        if whole_step and done < trainer.num_training_batches and self._is_due(trainer):
            self._save(trainer, Position(trainer.current_epoch, done))

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Validate, keep the best networks, write metrics, and decide whether to stop."""
        assert isinstance(pl_module, SegmentationTask)
        self._progress.finish()
        started = time.perf_counter()
        epoch = self._epoch
        seconds = epoch.seconds + epoch.waited
        row: Row = {"epoch": float(trainer.current_epoch + 1)}
        row |= {name: total / epoch.patches for name, total in epoch.terms.items()}
        drawn, worst = self._patch_losses.end(trainer.current_epoch)
        row |= drawn
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        row["patches_per_second"] = epoch.patches / seconds
        row["data_wait"] = epoch.waited / seconds
        last = trainer.should_stop or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        # One process validates, and broadcasts the result.
        if trainer.is_global_zero and self._is_validated(row, last):
            device = str(pl_module.device)
            row |= self._validation.score(pl_module.network, device, self._progress)
        minutes = (seconds + time.perf_counter() - started) / 60
        row, minutes, last = trainer.strategy.broadcast((row, minutes, last))
        self.history.rows.append(row)
        self.history.minutes += minutes
        gain = self.history.gain(row)
        if gain is not None:
            pl_module.validated(gain)
        self._ended = trainer.should_stop = last or self._stale()
        saves = self._ended or self._is_due(trainer, self._save_took / _MAX_SAVING)
        if trainer.is_global_zero:
            if gain is not None or (saves and not self._validation.slides):
                self._validation.keep(pl_module.network, self.history)
            self._write(trainer)
            write_worst(self._out / WORST, worst)
        self._epoch = _Epoch()
        if saves:
            self._save(trainer, Position(trainer.current_epoch + 1, 0))

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Finish the progress bar."""
        self._progress.finish()

    def _lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._step_ended = self._step_ended, time.perf_counter()
        return self._step_ended - before

    def _start_bar(self, trainer: lightning.Trainer) -> None:
        title = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        batch = self._recipe.train.batch_size * trainer.world_size
        self._progress.start(title, int(trainer.num_training_batches) * batch, "patches")

    def _is_due(self, trainer: lightning.Trainer, seconds: float = math.inf) -> bool:
        """Return whether ``seconds`` or ``train.save_minutes`` have passed since the last save."""
        longest = min(seconds, 60 * self._recipe.train.save_minutes)
        due = time.perf_counter() - self._saved >= longest
        if trainer.world_size > 1:
            due = bool(trainer.strategy.reduce_boolean_decision(due, all=False))
        return due

    def _save(self, trainer: lightning.Trainer, position: Position) -> None:
        self._position = position
        started = time.perf_counter()
        save_state(trainer, self._out)
        # Saving counts towards the time limit, but neither as waiting nor as training.
        self._saved = self._step_ended = time.perf_counter()
        self._save_took = self._saved - started
        self.history.minutes += self._save_took / 60

    def _is_validated(self, row: Row, last: bool) -> bool:
        due = last or row["epoch"] % self._recipe.train.validate_every == 0
        return bool(self._validation.slides) and due

    def _stale(self) -> bool:
        """Return whether validation has not improved for ``train.early_stop`` validations."""
        patience = self._recipe.train.early_stop
        return patience is not None and self.history.validations_since_best >= patience

    def _keep_pace(self, trainer: lightning.Trainer) -> None:
        """Fit the learning-rate schedule to the time limit, and stop the run when it is reached."""
        limit = self._recipe.train.max_minutes
        if limit is None:
            return
        spent = 60 * self.history.minutes + self._epoch.seconds + self._epoch.waited
        left = steps_left(limit, spent, trainer.global_step)
        # All processes use the measurement of one.
        left = trainer.strategy.broadcast(left)
        batches = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        planned = batches // self._recipe.train.accumulate - trainer.global_step
        if trainer.global_step > MEASURED_AFTER:
            for config in trainer.lr_scheduler_configs:
                end_in(config.scheduler, min(left, planned))
            if left < planned:
                minutes = max(0.0, limit - spent / 60)
                self._progress.note(f"train.max_minutes stops it in {minutes:.1f} min")
        trainer.should_stop = trainer.should_stop or left < 1
        if left < 1 and planned > 0:
            step = self._recipe.train.accumulate * self._recipe.train.batch_size
            done = trainer.global_step * step * trainer.world_size
            self.history.stopped = (
                f"training was stopped by train.max_minutes ({limit:g}) after {done:,} of "
                f"{done + planned * step * trainer.world_size:,} patches: the network is unfinished"
            )

    def _write(self, trainer: lightning.Trainer) -> None:
        """Write and log the metrics of the last epoch."""
        row = self.history.rows[-1]
        columns = list(dict.fromkeys(name for one in self.history.rows for name in one))
        self.history.write_csv(self._out / METRICS, columns)
        if self.history.stopped:
            write_atomic(self._out / STOPPED, self.history.stopped)
        for board in trainer.loggers:
            board.log_metrics({k: v for k, v in row.items() if k != "epoch"}, int(row["epoch"]))
        logger.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if row["data_wait"] > _MAX_WAIT and row["epoch"] == 1:
            logger.warning(
                "the network waited %.0f %% of the epoch for patches; raise train.workers (%d)",
                100 * row["data_wait"],
                self._recipe.train.workers,
            )
