"""Owns the Lightning module: training step, optimiser, schedule and weight average."""

import math
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from wsi_seg.config import LossConfig, Recipe
from wsi_seg.config.loss import Term
from wsi_seg.data.batches import BatchAugmenter
from wsi_seg.data.mix import mix_batch
from wsi_seg.errors import TrainingError
from wsi_seg.learn.average import build_average, first_averaged_epoch
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.losses.pixels import ClassOptions, Pixels, ratio
from wsi_seg.learn.optim import build_optimizer, build_plateau, build_schedule, clip_gradients
from wsi_seg.models.card import ModelCard
from wsi_seg.models.training_network import TrainingNetwork
from wsi_seg.sampling.counters import Stream, random_bits

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_PLATEAU = "plateau"


class SegmentationTask(lightning.LightningModule):
    """Trains a network by a recipe.

    Parameters
    ----------
    learner
        Network with its training-only parts.
    card
        Card of the network, with its normalisation.
    recipe
        Recipe with loss, optimiser, schedule and seed.
    steps_per_epoch
        Optimiser steps per epoch.
    augmenter
        Augmentation of batches on the device.
    """

    _scale: torch.Tensor
    _shift: torch.Tensor

    def __init__(
        self,
        learner: TrainingNetwork,
        card: ModelCard,
        recipe: Recipe,
        *,
        steps_per_epoch: int,
        augmenter: BatchAugmenter = BatchAugmenter(()),  # noqa: B008 (has no state)
    ) -> None:
        super().__init__()
        self.learner = learner.to(memory_format=torch.channels_last)
        self.average = build_average(learner.network, recipe.train)
        self._loss = SegmentationLoss(recipe.loss)
        self._auxiliary_loss = (
            _auxiliary_loss(recipe.loss) if recipe.model.deep_supervision else None
        )
        self._recipe = recipe
        self._class_options = class_options_of(recipe)
        self._augmenter = augmenter
        self._steps_per_epoch = steps_per_epoch
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        # (x / 255 - mean) / std as one multiplication and one addition.
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
        self.register_buffer("_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("_shift", -mean / std, persistent=False)

    @property
    def network(self) -> nn.Module:
        """Network to validate and save: the weight average once it has started."""
        if self.average is not None and int(self.average.n_averaged) > 0:
            return self.average.module
        return self.learner.network

    def on_train_start(self) -> None:
        """Freeze the encoder if the run is resumed in a frozen epoch."""
        self._freeze()

    def on_train_epoch_start(self) -> None:
        """Freeze or unfreeze the encoder."""
        self._freeze()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and augmentation from the step, so that a resumed run is the same."""
        bits = random_bits(
            self._recipe.seed,
            self.current_epoch,
            stream=Stream.NETWORK,
            first=batch_idx * self.trainer.world_size + self.trainer.global_rank,
            count=1,
        )[0, 0]
        torch.manual_seed(int(bits) >> 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Compute the loss of a batch of images, labels and weights.

        Parameters
        ----------
        batch
            Images ``(B, C, H, W)`` uint8, 0 to 255; labels ``(B, H, W)`` uint8 ids or
            ``(B, K, H, W)`` float32 probabilities; weights ``(B,)`` or ``(B, H, W)`` float32.
        batch_idx
            Index of the batch in the epoch.

        Returns
        -------
        dict
            ``loss``; ``terms`` with the loss and its terms; ``patches`` from `losses_of_patches`.
        """
        images, labels, weights = self._augmented(*batch)
        if (mix := self._recipe.mix_batches) is not None:
            classes = len(self._recipe.classes)
            images, labels, weights = mix_batch(images, labels, weights, mix, classes=classes)
        weight = weights if weights.ndim == 3 else weights.reshape(-1, 1, 1)
        pixels = images.to(memory_format=torch.channels_last).float()
        outputs = self.learner(pixels * self._scale + self._shift)
        px = Pixels.of(
            outputs.logits,
            labels,
            weight=weight,
            class_logits=outputs.class_logits,
            class_options=self._class_options,
        )
        terms = self._loss.terms(px)
        loss = self._loss.total(terms)
        if self._auxiliary_loss is not None:
            auxiliary = [
                self._auxiliary_loss(
                    Pixels.of(logits, labels, weight=weight, class_options=self._class_options)
                )
                for logits in outputs.auxiliary
            ]
            terms["auxiliary"] = torch.stack(auxiliary).sum()
            loss = loss + self._recipe.model.deep_supervision * terms["auxiliary"]
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1}, step "
                f"{batch_idx + 1}; lower optimizer.lr ({self._recipe.optimizer.lr:g}), set "
                "optimizer.clip_norm, or set train.precision to fp32, and start again in a new "
                "--out"
            )
        # lightning divides "loss" by the number of accumulated batches, in place.
        found = {"loss": loss} | terms
        return {
            "loss": loss,
            "terms": {name: term.detach() for name, term in found.items()},
            "patches": losses_of_patches(px),
        }

    def _augmented(
        self, images: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
    ) -> Batch:
        """Augment a batch; weights of pixels are transformed like labels."""
        side = self._recipe.patch_px
        if weights.ndim == 3:
            images, labels, weights = self._augmenter(images, labels, weights, side=side)
        else:
            images, labels = self._augmenter(images, labels, side=side)
        return images, labels, weights

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients by the recipe."""
        clip_gradients(self.learner, self._recipe.optimizer)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take a step, then update the weight average."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None and epoch >= first_averaged_epoch(self._recipe.train):
            self.average.update_parameters(self.learner.network)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser, and its schedule per step."""
        recipe = self._recipe
        optimizer = build_optimizer(self.learner, recipe.optimizer)
        self._plateau = build_plateau(optimizer, recipe.schedule)
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)
        schedule = build_schedule(
            optimizer,
            recipe.schedule,
            epochs=recipe.train.epochs,
            steps_per_epoch=self._steps_per_epoch,
            keep_momentum=recipe.optimizer.sets_momentum,
        )
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def validated(self, gain: float) -> None:
        """Step the ``plateau`` schedule with a validation score; higher is better."""
        if self._plateau is not None:
            self._plateau.step(gain)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state of the ``plateau`` schedule, which lightning does not manage."""
        if self._plateau is not None:
            checkpoint[_PLATEAU] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it in `configure_optimizers`, which lightning calls later."""
        self._plateau_state = checkpoint.get(_PLATEAU)

    def _freeze(self) -> None:
        if self._recipe.model.freeze_encoder_epochs:
            frozen = self.current_epoch < self._recipe.model.freeze_encoder_epochs
            self.learner.freeze_encoder(frozen)


@torch.no_grad()
def losses_of_patches(px: Pixels) -> torch.Tensor:
    """Return the mean cross-entropy of each patch, ``(B,)``, whatever the weight of the patch."""
    axes, values = (1, 2, 3), px.cross_entropy
    weight = px.weight[:, : values.shape[1]]
    return ratio((values * weight).sum(axes), weight.sum(axes))


def class_options_of(recipe: Recipe) -> ClassOptions:
    """Return mode and weights of a recipe's classes for the loss."""
    return ClassOptions(recipe.classes.is_exclusive, recipe.classes.weights)


def _auxiliary_loss(config: LossConfig) -> SegmentationLoss:
    """Build the loss of the inner depths: all terms but that of the classification head."""
    return SegmentationLoss(config.model_copy(update={"bce_empty": Term()}))
