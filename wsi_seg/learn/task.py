"""Owns one training step: px to normalised image, logits, loss, and what lightning has to know."""

import math

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from wsi_seg.config import Recipe
from wsi_seg.errors import TrainingError
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.optim import build_optimizer, build_schedule
from wsi_seg.models.checkpoint import ModelCard
from wsi_seg.sampling.counters import Stream, words

Batch = tuple[torch.Tensor, torch.Tensor]


class SegmentationTask(lightning.LightningModule):
    """A network that learns by a recipe.

    Parameters
    ----------
    network
        Built from the card.
    card
        Gives the normalisation.
    recipe
        Gives loss, optimiser, schedule and seed.
    steps
        Optimiser steps of the whole run.
    """

    _scale: torch.Tensor
    _shift: torch.Tensor

    def __init__(self, network: nn.Module, card: ModelCard, recipe: Recipe, *, steps: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self._loss = SegmentationLoss(recipe.loss)
        self._recipe = recipe
        self._steps = steps
        # (x / 255 - mean) / std as one multiplication and one addition.
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
        self.register_buffer("_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("_shift", -mean / std, persistent=False)

    def on_train_epoch_start(self) -> None:
        """Make dropout of this epoch independent of how the run got here."""
        word = words(
            self._recipe.seed, self.current_epoch, stream=Stream.NETWORK, first=0, count=1
        )[0, 0]
        torch.manual_seed(int(word) >> 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        """Loss of ``(images (B, 3, H, W) uint8, labels (B, H, W) uint8)``, and its terms."""
        images, labels = batch
        pixels = images.to(memory_format=torch.channels_last).float()
        logits = self.network(pixels * self._scale + self._shift)
        terms = self._loss.terms(logits, labels)
        loss = self._loss.total(terms)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1}, step "
                f"{batch_idx + 1}; lower optimizer.lr ({self._recipe.optimizer.lr:g}) or set "
                "train.precision to fp32, and start again in a new --out"
            )
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser, and its schedule advanced by step."""
        config = self._recipe.optimizer
        optimizer = build_optimizer(self.network, config)
        schedule = build_schedule(optimizer, self._recipe.schedule, lr=config.lr, steps=self._steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
