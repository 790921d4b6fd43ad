"""Owns the data module of a fit: loading patches in worker processes, and where to augment them."""

import multiprocessing
from multiprocessing import forkserver

import lightning
import torch
from torch.utils.data import DataLoader

from wsi_seg.config import Recipe
from wsi_seg.config.augment import StepConfig
from wsi_seg.data.augment import Augmenter
from wsi_seg.data.batches import BatchAugmenter, split_steps
from wsi_seg.data.dataset import EpochItems
from wsi_seg.data.presets import PRESETS
from wsi_seg.data.weighted import WeightedPatchDataset
from wsi_seg.learn.dataset import patch_dataset, run_sampler, step_size
from wsi_seg.learn.patch_losses import PatchLosses
from wsi_seg.learn.resume import Position
from wsi_seg.learn.split import Split
from wsi_seg.learn.task import Batch
from wsi_seg.predict.device import pick_device

# Patches for measuring the position bias after training.
_CHECKED = 12


class Patches(lightning.LightningDataModule):
    """Training patches of a split, divided among lightning's processes.

    Parameters
    ----------
    recipe, split
        Recipe and split of the fit.
    position
        Position from which the fit is resumed.

    Attributes
    ----------
    losses
        Losses of the patches.
    augmenter
        Augmentation steps that run on the device.
    """

    def __init__(self, recipe: Recipe, split: Split, position: Position) -> None:
        super().__init__()
        self._config = recipe.train
        self._step = step_size(recipe)
        self._sampler = run_sampler(split.train, recipe)
        before, after = _split_steps(recipe)
        self.augmenter = BatchAugmenter(after)
        self._patch_px = recipe.patch_px
        self._dataset = patch_dataset(
            split.train,
            recipe,
            self._sampler,
            augment=before,
            patch_px=self.augmenter.side_to_cut(recipe.patch_px),
        )
        self._items = EpochItems(
            len(self._sampler),
            epoch=position.epoch,
            skip=position.batches * self._config.batch_size,
        )
        self.losses = PatchLosses(
            self._items,
            self._sampler,
            [slide.name for slide in split.train],
            replay=recipe.sampling.replay,
        )

    def first(self) -> torch.Tensor:
        """Return the first patches of epoch 0, ``(B, C, side, side)`` uint8."""
        count = min(_CHECKED, len(self._sampler))
        patches = torch.stack([self._dataset[item][0] for item in range(count)])
        start = (patches.shape[-1] - self._patch_px) // 2
        return patches[..., start:, start:][..., : self._patch_px, : self._patch_px]

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return len(self._sampler) // (self._step * self._config.accumulate)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Build the data loader of this rank."""
        assert self.trainer is not None
        batch, workers = self._config.batch_size, self._config.workers
        self._items.rank, self._items.ranks = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(
            self._dataset,
            batch_size=batch,
            sampler=self._items,
            num_workers=workers,
            persistent_workers=workers > 0,
            # A fork would inherit locks held by reader threads; the fork server has none, and has
            # already imported the modules.
            multiprocessing_context="forkserver" if workers else None,
            pin_memory=torch.cuda.is_available(),
        )


def prepare_loading(recipe: Recipe) -> None:
    """Start the fork server of the loader's workers in advance."""
    if recipe.train.workers:
        multiprocessing.set_forkserver_preload(
            [WeightedPatchDataset.__module__, Augmenter.__module__]
        )
        forkserver.ensure_running()


def _split_steps(recipe: Recipe) -> tuple[tuple[StepConfig, ...], tuple[StepConfig, ...]]:
    """Return the augmentation steps for the loader's workers, and those for the device."""
    choice = recipe.train.augment_on
    if choice == "device" or (choice == "auto" and pick_device("auto").type == "cuda"):
        return split_steps(recipe.augment)
    steps = PRESETS[recipe.augment] if isinstance(recipe.augment, str) else recipe.augment
    return steps, ()
