"""Failures end in a clear message, and keep saved states."""

import pytest
import torch

from wsi_seg.errors import ConfigError, TrainingError
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.train import train
from wsi_seg.models import load_checkpoint
from wsi_seg.models.training_network import TrainingNetwork
from wsi_seg.progress import Silent


class FromEpoch(Silent):
    """Calls a function when this epoch starts."""

    def __init__(self, number, action):
        self.title, self.action = f"epoch {number}/", action

    def start(self, title, total, unit):
        if title.startswith(self.title):
            self.action()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train_until_fault(recipe, out, monkeypatch, owner, name, broken):
    """Train one epoch, then break something; the run can be resumed once it is repaired."""
    with monkeypatch.context() as patch:
        progress = FromEpoch(2, lambda: patch.setattr(owner, name, broken))
        with pytest.raises(TrainingError) as caught:
            train(recipe, out, progress=progress)
    load_checkpoint(out / "best.safetensors")
    assert train(recipe, out, progress=Silent()).best.epochs == recipe.train.epochs
    return str(caught.value)


def test_a_loss_that_is_not_a_number(recipe_for, tmp_path, monkeypatch):
    def broken(self, terms):
        return torch.stack(list(terms.values())).sum() * float("nan")

    message = train_until_fault(
        recipe_for(), tmp_path, monkeypatch, SegmentationLoss, "total", broken
    )
    assert "became nan in epoch 2, step 1; lower optimizer.lr" in message


def test_a_device_that_is_out_of_memory(recipe_for, tmp_path, monkeypatch):
    def broken(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    message = train_until_fault(
        recipe_for(), tmp_path, monkeypatch, TrainingNetwork, "forward", broken
    )
    assert "too little memory for 8 patches of 32 pixels; saved states are intact" in message
    assert "--dry-run" in message


def test_no_training_slides(recipe_for, tmp_path):
    with pytest.raises(ConfigError, match="no slide is left to train on"):
        train(recipe_for("data.validation=[a, b, c]"), tmp_path, progress=Silent())


def test_plateau_needs_validation(recipe_for, tmp_path):
    recipe = recipe_for("data.validation=0.0", "schedule={name: plateau}")
    with pytest.raises(ConfigError, match=r"plateau needs held-out slides"):
        train(recipe, tmp_path, progress=Silent())


def test_a_head_needs_a_loss(recipe_for):
    with pytest.raises(ConfigError, match=r"expected loss\.bce_empty above 0"):
        recipe_for("model.head=avg")


def test_inner_depths_need_a_loss_of_pixels(recipe_for):
    with pytest.raises(ConfigError, match=r"needs a pixelwise loss next to loss\.bce_empty"):
        recipe_for("model.deep_supervision=0.1", "loss={bce_empty: 1}")


def test_folds_and_named_validation_slides_exclude_each_other(recipe_for):
    with pytest.raises(ConfigError, match="got both folds and names in validation"):
        recipe_for("data.validation=[a]", "data.folds=2")


def test_tensorboard_that_is_not_installed(recipe_for, tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("wsi_seg.learn.fit.TensorBoardLogger", missing)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        train(recipe_for("train.tensorboard=true"), tmp_path, progress=Silent())


def test_installed_tensorboard_gets_the_metrics(recipe_for, tmp_path):
    pytest.importorskip("tensorboard", reason="an optional extra")
    train(recipe_for("train.tensorboard=true", "train.epochs=1"), tmp_path, progress=Silent())
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert b"val_dice" in events.read_bytes()


def test_waiting_for_patches_is_logged(recipe_for, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("wsi_seg.learn.callback._MAX_WAIT", 0.0)
    with caplog.at_level("INFO", logger="wsi_seg"):
        report = train(recipe_for("train.epochs=1"), tmp_path, progress=Silent())
    assert "data_wait 0." in caplog.text
    assert "of the epoch for patches; raise train.workers (0)" in caplog.text
    assert 0 < report.best.data_wait < 1
