"""The loss term for rounds of hard mining: pixels weighted by error within each half."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from wsi_seg.config import LossConfig
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.losses.pixels import Pixels


def loss_of(logits, label, **options):
    config = LossConfig.model_validate({"bce_hard_halves": {"weight": 1.0} | options})
    return SegmentationLoss(config)(Pixels.of(logits, label))


def row(*logits):
    return torch.tensor(logits, dtype=torch.float64).reshape(1, 1, 1, -1)


def ids(*labels):
    return torch.tensor(labels, dtype=torch.uint8).reshape(1, 1, -1)


def test_it_is_half_the_weighted_mean_of_each_half():
    logits, label = row(2.0, -1.0, 0.5, -3.0, 1.0), ids(1, 1, 0, 0, 0)
    values = binary_cross_entropy_with_logits(
        logits[0, 0, 0], label[0, 0].double(), reduction="none"
    )
    weights = (logits.sigmoid()[0, 0, 0] - label[0, 0]).abs()
    expected = (values * weights)[:2].mean() / 2 + (values * weights)[2:].mean() / 2
    assert loss_of(logits, label).item() == pytest.approx(expected.item())
    plain = values[:2].mean() / 2 + values[2:].mean() / 2
    assert loss_of(logits, label, gamma=0.0).item() == pytest.approx(plain.item())


def test_ten_times_as_many_negatives_change_nothing():
    logits, label = torch.randn(1, 1, 4, 6, dtype=torch.float64), torch.zeros(1, 4, 6).byte()
    label[0, 1, :3] = 1
    more = torch.where(label[:, None] == 1, -50.0, logits)
    many = torch.cat([logits, *[more] * 9], dim=3)
    marks = torch.cat([label, *[torch.where(label == 1, 255, 0).byte()] * 9], dim=2)
    assert loss_of(many, marks).item() == pytest.approx(loss_of(logits, label).item())


def test_a_mistake_has_a_larger_gradient_than_a_nearly_correct_pixel():
    """Of two negatives, the wrong one has a larger share of the gradient than in bce_balanced."""
    shares = {}
    for gamma in (0.0, 2.0):
        logits = row(4.0, 3.0, -1.0).requires_grad_()
        loss_of(logits, ids(1, 0, 0), gamma=gamma).backward()
        assert logits.grad is not None
        wrong, nearly = logits.grad[0, 0, 0, 1:].abs().tolist()
        shares[gamma] = wrong / nearly
    assert shares[2.0] > 5 * shares[0.0]


def test_only_the_hardest_negatives_of_each_patch_count():
    logits = torch.stack([row(3.0, 2.0, 1.0, -1.0), row(0.5, -2.0, -1.0, 4.0)]).reshape(2, 1, 1, 4)
    logits.requires_grad_()
    loss_of(logits, torch.tensor([[[0, 0, 0, 0]], [[0, 0, 0, 1]]]).byte(), negatives=2).backward()
    assert logits.grad is not None
    moved = logits.grad.ne(0)[:, 0, 0].tolist()
    assert moved == [[True, True, False, False], [True, False, True, True]]


def test_a_half_without_pixels_is_finite():
    for label in (ids(0, 0, 0), ids(1, 1, 1), ids(255, 255, 255)):
        assert torch.isfinite(loss_of(row(1.0, -2.0, 3.0), label, negatives=2))
