"""Owns building the patch dataset of a recipe, for `train` and for custom training loops."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.utils.data import Dataset

from wsi_seg.config import Recipe
from wsi_seg.config.augment import Augment, StepConfig
from wsi_seg.data.augment import require_no_colour, step_names
from wsi_seg.data.dataset import PatchDataset
from wsi_seg.data.source import PatchSources
from wsi_seg.data.weighted import WeightedPatchDataset
from wsi_seg.errors import ConfigError
from wsi_seg.learn.sampler import patch_sampler
from wsi_seg.learn.split import Split, split_slides
from wsi_seg.reading.view import View
from wsi_seg.sampling import GridSampler, PatchSampler
from wsi_seg.sampling.drift import distribution
from wsi_seg.sampling.maps import TrainingSlide


class EpochDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches of one epoch; see `make_dataset`.

    Examples
    --------
    >>> for epoch in range(20):  # doctest: +SKIP
    ...     dataset.set_epoch(epoch)
    ...     for image, mask in DataLoader(dataset, batch_size=8):
    ...         ...
    """

    def __init__(self, patches: WeightedPatchDataset, length: int) -> None:
        self._patches, self._length = patches, length
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0; persistent workers keep the epoch with which they were started."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= item < self._length:
            raise IndexError(f"got patch {item}; expected 0 to {self._length - 1}")
        image, mask, _ = self._patches[self._epoch * self._length + item]
        return image, mask


def make_dataset(
    recipe: Recipe,
    split: Literal["train", "validation"] = "train",
    fold: int | None = None,
) -> EpochDataset:
    """Build the dataset of a recipe's training patches, for custom loops in torch or Lightning.

    With the same seed, the patches are those of `train`; all augmentation is done in the dataset.
    Weights of patches and pixels are not returned.

    Parameters
    ----------
    recipe
        From `load_recipe`; the first phase is used, and ``recipe.stages`` has all phases.
    split
        ``train``; or ``validation`` for patches drawn in the same way from the held-out slides,
        without augmentation.
    fold
        Index of the fold, from 0, if the recipe has ``data.folds``.

    Returns
    -------
    EpochDataset
        Items are ``(image, mask)``: uint8 ``(C, H, W)``, 0 to 255, H = W = ``patch_px``, not
        normalised, with C = 3 (RGB) unless the recipe has ``data.context_slices``; and uint8 class
        ids ``(H, W)``, 255 to ignore. For soft labels and overlapping classes the mask is float32
        probabilities ``(classes, H, W)``, NaN to ignore. `set_epoch` sets the epoch.

    Raises
    ------
    ConfigError
        If the recipe does not match its slides, has no such fold, or holds out no slides.
    StoreError
        If a slide or a label cannot be opened.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> dataset = wsi_seg.make_dataset(wsi_seg.load_recipe("recipe.yaml"))  # doctest: +SKIP
    >>> for epoch in range(10):  # doctest: +SKIP
    ...     dataset.set_epoch(epoch)
    ...     for images, masks in DataLoader(dataset, batch_size=8):
    ...         loss = step(images.float() / 255, masks)
    """
    stage = recipe.stages[0]
    chosen = _fold(recipe, split_slides(recipe), fold)
    slides, augment = chosen.train, stage.augment
    if split == "validation":
        label = recipe.data.label
        slides, augment = tuple(TrainingSlide.of(s, label) for s in chosen.validation), "none"
        if not slides:
            raise ConfigError("no slide is held out; set data.validation above 0")
    sampler = run_sampler(slides, stage)
    patches = patch_dataset(slides, stage, sampler, augment=augment, patch_px=stage.patch_px)
    return EpochDataset(patches, len(sampler))


def _fold(recipe: Recipe, splits: Sequence[Split], fold: int | None) -> Split:
    if recipe.data.folds is None:
        if fold is not None:
            raise ConfigError(f"got fold {fold}; expected None, as the recipe has no data.folds")
        return splits[0]
    if fold is None or not 0 <= fold < len(splits):
        raise ConfigError(f"got fold {fold}; expected 0 to {len(splits) - 1}, see data.folds")
    return splits[fold]


def step_size(recipe: Recipe) -> int:
    """Return the number of patches per batch over all devices."""
    return recipe.train.batch_size * recipe.train.devices * recipe.train.nodes


def run_sampler(slides: Sequence[TrainingSlide], recipe: Recipe) -> PatchSampler | GridSampler:
    """Build the sampler of a run, with epochs of whole optimiser steps.

    Each step then averages its gradients over the same number of patches.
    """
    return patch_sampler(slides, recipe, batch=step_size(recipe) * recipe.train.accumulate)


def patch_dataset(
    slides: Sequence[TrainingSlide],
    recipe: Recipe,
    sampler: PatchSampler | GridSampler,
    *,
    augment: Augment,
    patch_px: int,
) -> WeightedPatchDataset:
    """Build the dataset of the patches of all epochs.

    Parameters
    ----------
    slides, sampler
        Training slides, and the sampler of positions on them; see `run_sampler`.
    recipe
        Recipe with classes, label, resolution, seed and weights.
    augment
        Augmentation steps to apply when loading.
    patch_px
        Side of a patch, in pixels.

    Raises
    ------
    ConfigError
        If the recipe changes colours of images whose channels are slices, or reverses colours.
    StoreError
        If a label lacks one of the classes.
    """
    if recipe.data.context_slices:
        require_no_colour(recipe.augment)
        if recipe.intensity.stain != "none":
            raise ConfigError(
                f"got intensity.stain {recipe.intensity.stain} with data.context_slices, whose "
                "channels are slices; set it to none"
            )
    elif "slice_flip" in step_names(recipe.augment):
        raise ConfigError(
            "augment: slice_flip reverses slices, but without data.context_slices the channels are "
            "red, green and blue; leave it out"
        )
    view = View.of(recipe)
    sources = PatchSources(
        [slide.store for slide in slides], recipe.data.label, classes=recipe.class_table, view=view
    )
    # Opens each source once, so that errors are raised before training starts.
    kinds = {(source.soft is not None, source.doubt is not None) for source in sources}
    soft = any(has_soft for has_soft, _ in kinds)
    return WeightedPatchDataset(
        PatchDataset(
            sources,
            sampler,
            augment=with_colours(augment, slides),
            patch_px=patch_px,
            seed=recipe.seed,
        ),
        [recipe.data.pseudo_weight if slide.is_pseudo else 1.0 for slide in slides],
        classes=len(recipe.classes) if soft else None,
        by_px=any(has_doubt for _, has_doubt in kinds),
    )


def with_colours(augment: Augment, slides: Sequence[TrainingSlide]) -> Augment:
    """Fill in the colour statistics of the slides in ``restain`` steps without values."""
    if isinstance(augment, str) or not slides:
        return augment
    return tuple(_with_colours(step, slides) for step in augment)


def _with_colours(step: StepConfig, slides: Sequence[TrainingSlide]) -> StepConfig:
    if step.one_of is not None:
        inner = tuple(_with_colours(one, slides) for one in step.one_of.of)
        return StepConfig(one_of=step.one_of.model_copy(update={"of": inner}))
    colours = step.restain
    if colours is None or (colours.mean is not None and colours.deviation is not None):
        return step
    mean, deviation = (tuple(v.tolist()) for v in distribution([s.store for s in slides]))
    measured = {"mean": colours.mean or mean, "deviation": colours.deviation or deviation}
    return StepConfig(restain=colours.model_copy(update=measured))
