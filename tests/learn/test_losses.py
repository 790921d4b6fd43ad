import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from wsi_seg.config import LossConfig
from wsi_seg.learn.losses import SegmentationLoss


def example(seed=0, classes=2):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, 7, 5, generator=generator)
    label = torch.randint(0, classes + 1, (2, 7, 5), generator=generator, dtype=torch.uint8)
    return logits, label


def one_hot(label, classes):
    return torch.stack([(label == c + 1).float() for c in range(classes)], dim=1)


def soft_dice(logits, target):
    """Pooled over the batch, per class; mean over classes."""
    p = logits.sigmoid()
    score = 2 * (p * target).sum((0, 2, 3)) / (p + target).sum((0, 2, 3))
    return (1 - score).mean()


@given(seed=st.integers(0, 100), bce=st.floats(0.1, 5), dice=st.floats(0.1, 5))
def test_the_sum_is_the_weighted_sum_of_its_definitions(seed, bce, dice):
    logits, label = example(seed)
    target = one_hot(label, 2)
    expected = bce * binary_cross_entropy_with_logits(logits, target) + dice * soft_dice(
        logits, target
    )
    got = SegmentationLoss(LossConfig(bce=bce, dice=dice))(logits, label)
    assert got.item() == pytest.approx(expected.item(), abs=1e-5)


def test_ignored_px_change_nothing():
    logits, label = example()
    label[:, 3:] = 255
    loss = SegmentationLoss(LossConfig())
    cut = loss(logits[:, :, :3].contiguous(), label[:, :3].contiguous())
    assert loss(logits, label).item() == pytest.approx(cut.item(), abs=1e-6)
    logits.requires_grad_()
    loss(logits, label).backward()
    assert (logits.grad[:, :, 3:] == 0).all()
    assert (logits.grad[:, :, :3] != 0).all()


@pytest.mark.parametrize("value", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("fill", [0, 1, 255])
def test_extremes_stay_finite(value, fill):
    logits = torch.full((1, 2, 4, 4), value, requires_grad=True)
    loss = SegmentationLoss(LossConfig())(logits, torch.full((1, 4, 4), fill, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_class_absent_from_the_batch_adds_no_dice():
    logits, label = example()
    label[:] = 0
    terms = SegmentationLoss(LossConfig()).terms(logits, label)
    assert terms["dice"].item() == 0
    assert terms["bce"].item() > 0


def test_terms_of_weight_zero_are_left_out():
    logits, label = example()
    assert list(SegmentationLoss(LossConfig(bce=0)).terms(logits, label)) == ["dice"]
