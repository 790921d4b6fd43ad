"""Datasets of a recipe for custom training loops, and custom callbacks in `train`."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from wsi_seg import make_dataset, train
from wsi_seg.errors import ConfigError


class Recorder(lightning.Callback):
    """Records the batch of each step, and counts epochs."""

    def __init__(self):
        self.batches = []
        self.epochs = 0

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.batches.append(batch)

    def on_train_epoch_end(self, trainer, task):
        self.epochs += 1


@pytest.mark.parametrize("workers", [0, 2])
def test_its_patches_are_those_of_the_trainer(recipe_for, tmp_path, workers):
    recipe = recipe_for("train.epochs=2", "augment=light", "train.augment_on=workers")
    recorder = Recorder()
    train(recipe, tmp_path / "run", callbacks=[recorder])
    assert recorder.epochs == 2
    assert len(recorder.batches) == 8
    dataset = make_dataset(recipe)
    assert len(dataset) == 32
    # forkserver, as in training: reader threads do not survive a fork.
    context = "forkserver" if workers else None
    loader = DataLoader(dataset, batch_size=8, num_workers=workers, multiprocessing_context=context)
    fed = iter(recorder.batches)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        for images, masks in loader:
            theirs = next(fed)
            assert images.dtype == masks.dtype == torch.uint8
            assert torch.equal(images, theirs[0].cpu())
            assert torch.equal(masks, theirs[1].cpu())


def test_callbacks_go_through_every_fold(recipe_for, tmp_path):
    recorder = Recorder()
    recipe = recipe_for("train.epochs=1", "data.validation=0.3", "data.folds=2")
    train(recipe, tmp_path / "run", callbacks=[recorder])
    assert recorder.epochs == 2


def patches(dataset):
    return [dataset[item] for item in range(len(dataset))]


def test_all_augmentation_is_done_in_the_dataset(recipe_for):
    """Including steps that training runs on the device, on larger patches."""
    turned = "augment=[{affine: {p: 1.0, rotate: 45}}]"
    on_device = make_dataset(recipe_for(turned, "train.augment_on=device"))
    in_workers = make_dataset(recipe_for(turned, "train.augment_on=workers"))
    for ours, theirs in zip(patches(on_device), patches(in_workers), strict=True):
        assert ours[0].shape == (3, 32, 32)
        assert all(map(torch.equal, ours, theirs))


def test_validation_patches_are_from_held_out_slides_without_augmentation(recipe_for):
    plain = patches(make_dataset(recipe_for("augment=none"), split="validation"))
    changed = patches(make_dataset(recipe_for("augment=heavy"), split="validation"))
    swapped = patches(
        make_dataset(recipe_for("augment=none", "data.train=[c]", "data.validation=[a]"))
    )
    assert len(plain) == 32
    for one, same, trained in zip(plain, changed, swapped, strict=True):
        assert all(map(torch.equal, one, same))
        assert all(map(torch.equal, one, trained))


def test_colours_are_not_reversed_like_slices(recipe_for):
    steps = "augment=[{one_of: {of: [{slice_flip: {}}, {hflip: {}}]}}]"
    with pytest.raises(ConfigError, match="slice_flip reverses slices, but without"):
        make_dataset(recipe_for(steps))


def test_folds_are_chosen(recipe_for):
    recipe = recipe_for("data.validation=0.3", "data.folds=2", "augment=none")
    first, second = (
        patches(make_dataset(recipe, split="validation", fold=fold)) for fold in (0, 1)
    )
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    with pytest.raises(ConfigError, match="got fold None; expected 0 to 1"):
        make_dataset(recipe)
    with pytest.raises(ConfigError, match="got fold 2; expected 0 to 1"):
        make_dataset(recipe, fold=2)
    with pytest.raises(ConfigError, match="got fold 0; expected None"):
        make_dataset(recipe_for(), fold=0)


def test_without_held_out_slides_there_is_no_validation(recipe_for):
    with pytest.raises(ConfigError, match=r"no slide is held out; set data\.validation"):
        make_dataset(recipe_for("data.validation=0.0"), split="validation")


def test_items_past_the_epoch_are_refused(recipe_for):
    dataset = make_dataset(recipe_for())
    for item in (-1, 32):
        with pytest.raises(IndexError, match="expected 0 to 31"):
            dataset[item]
