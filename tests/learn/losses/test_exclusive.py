"""Losses of exclusive classes, and weights of classes in either mode."""

import pytest
import segmentation_models_pytorch.losses as smp_losses
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from wsi_seg.config import LossConfig
from wsi_seg.config.loss import INDEPENDENT
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.losses.pixels import ClassOptions, Pixels
from wsi_seg.learn.task import losses_of_patches

# The classification head works in both modes, and has its own tests.
NAMES = [name for name in LossConfig.model_fields if name not in INDEPENDENT | {"bce_empty"}]

WITHOUT_ZERO = {"boundary", "active_contour"}


def example(seed=0, shape=(7, 5), dtype=torch.float32, classes=2):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 1 + classes, *shape, generator=generator, dtype=dtype)
    label = torch.randint(0, classes + 1, (2, *shape), generator=generator, dtype=torch.uint8)
    return logits, label


def one_hot(label, classes=2):
    return torch.stack([(label == c).float() for c in range(classes + 1)], dim=1)


def loss_of(name, logits, label, *, weight=None, weights=(), exclusive=True, **options):
    config = LossConfig.model_validate({name: {"weight": 1.0} | options})
    class_options = ClassOptions(exclusive, weights)
    return SegmentationLoss(config)(
        Pixels.of(logits, label, weight=weight, class_options=class_options)
    )


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_perfect_logits_are_near_the_minimum(name):
    _, label = example(1, shape=(16, 16))
    perfect = 60 * one_hot(label)
    best = loss_of(name, perfect, label).item()
    if name not in WITHOUT_ZERO:
        assert best == pytest.approx(0, abs=1e-5)
    for seed in range(3):
        assert best < loss_of(name, example(seed, shape=(16, 16))[0], label).item()
    assert best < loss_of(name, -perfect, label).item()


def test_ignored_pixels_have_no_gradient_and_change_nothing(name):
    logits, label = example(2, shape=(12, 9))
    label[:, 8:] = 255
    logits.requires_grad_()
    loss = loss_of(name, logits, label)
    loss.backward()
    assert (logits.grad[:, :, 8:] == 0).all()
    assert (logits.grad[:, :, :8] != 0).any()
    other = logits.detach().clone()
    other[:, :, 8:] = float("inf")
    assert loss_of(name, other, label).item() == pytest.approx(loss.item(), abs=1e-6)


@pytest.mark.parametrize("value", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("fill", [0, 1, 255])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_stay_finite(name, value, fill, dtype):
    logits = torch.full((2, 3, 5, 4), value, dtype=dtype)
    logits[:, 0] = 0
    logits.requires_grad_()
    loss = loss_of(name, logits, torch.full((2, 5, 4), fill, dtype=torch.uint8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_gradients_are_right(name):
    logits, label = example(4, shape=(4, 3), dtype=torch.float64)
    label[:, 0] = 255
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, label), logits)


def test_soft_targets_are_accepted_and_nan_is_ignored(name):
    logits, label = example(5)
    label[:, 0] = 255
    soft = one_hot(label)[:, 1:]
    soft[:, :, 0] = float("nan")
    assert loss_of(name, logits, soft).item() == pytest.approx(
        loss_of(name, logits, label).item(), abs=1e-6
    )


@pytest.mark.parametrize("term", ["ce", "mse", "dice", "log_dice", "jaccard", "tversky", "mcc"])
def test_the_loss_has_its_minimum_at_soft_targets(term):
    teacher = example(8)[0]
    target = teacher.softmax(dim=1)[:, 1:]
    best = loss_of(term, teacher, target).item()
    for factor in (0.3, 0.9, 1.1, 20):
        assert loss_of(term, factor * teacher, target).item() > best + 1e-4


def test_a_shift_of_all_logits_changes_nothing(name):
    """A softmax, not independent sigmoids."""
    logits, label = example(6)
    assert loss_of(name, logits + 5, label).item() == pytest.approx(
        loss_of(name, logits, label).item(), abs=1e-5
    )


@given(
    st.integers(0, 100),
    st.lists(st.floats(0.1, 9), min_size=2, max_size=2),
    st.integers(0, 3),
)
def test_ce_equals_torch(seed, weights, ignored):
    logits, label = example(seed)
    label[:, :ignored] = 255
    expected = cross_entropy(
        logits, label.long(), weight=torch.tensor([1.0, *weights]), ignore_index=255
    )
    got = loss_of("ce", logits, label, weights=tuple(weights))
    assert got.item() == pytest.approx(expected.item(), abs=1e-5)


def test_area_terms_equal_smp():
    logits, label = example(7)
    for name, theirs in (
        ("dice", smp_losses.DiceLoss("multiclass", classes=[1, 2])),
        ("jaccard", smp_losses.JaccardLoss("multiclass", classes=[1, 2])),
    ):
        assert loss_of(name, logits, label).item() == pytest.approx(
            theirs(logits, label.long()).item(), abs=1e-5
        )


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_matches_its_definition(gamma):
    logits, label = example(8)
    p = logits.softmax(1).gather(1, label.long()[:, None])
    expected = ((1 - p) ** gamma * -p.log()).mean()
    assert loss_of("focal", logits, label, gamma=gamma).item() == pytest.approx(
        expected.item(), abs=1e-5
    )


def test_lovasz_of_certain_predictions_is_one_minus_iou():
    for seed in range(5):
        _, label = example(seed, shape=(9, 9))
        answer, _ = example(seed + 50, shape=(9, 9))
        found = answer.argmax(1)
        iou = [
            ((found == c) & (label == c)).sum() / ((found == c) | (label == c)).sum()
            for c in (1, 2)
        ]
        got = loss_of("lovasz", 80 * one_hot(found), label)
        assert got.item() == pytest.approx(1 - sum(iou).item() / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("term", "exclusive"),
    [(term, mode) for term in ("dice", "lovasz", "boundary", "mse") for mode in (True, False)]
    + [(term, False) for term in ("bce", "bce_balanced", "bce_hard_halves")],
)
def test_a_class_with_weight_0_is_not_trained(term, exclusive):
    logits, label = example(9, shape=(12, 12))
    logits = logits if exclusive else logits[:, 1:]
    first, second = (
        loss_of(term, logits, label, weights=w, exclusive=exclusive).item()
        for w in ((1.0, 1e-9), (1e-9, 1.0))
    )
    both = loss_of(term, logits, label, weights=(3.0, 1.0), exclusive=exclusive).item()
    alike = loss_of(term, logits, label, weights=(2.0, 2.0), exclusive=exclusive).item()
    assert alike == pytest.approx(loss_of(term, logits, label, exclusive=exclusive).item())
    assert first != pytest.approx(second, abs=1e-4)
    assert both == pytest.approx((3 * first + second) / 4, abs=1e-5)


def test_cl_dice_penalises_a_broken_line_more_than_a_thinner_one():
    """The same number of missing pixels: along the side of a line, or across it."""
    label = torch.zeros(1, 24, 40, dtype=torch.uint8)
    label[:, 10:13] = 1
    side, cut = one_hot(label, 1), one_hot(label, 1)
    for wrong, rows, columns in (
        (side, slice(10, 11), slice(8, 17)),
        (cut, slice(10, 13), slice(8, 11)),
    ):
        wrong[:, 1, rows, columns] = 0
        wrong[:, 0, rows, columns] = 1
    dice = [loss_of("dice", 60 * wrong, label).item() for wrong in (side, cut)]
    lines = [loss_of("cl_dice", 60 * wrong, label).item() for wrong in (side, cut)]
    assert dice[0] == pytest.approx(dice[1], abs=1e-6)
    assert lines[1] > lines[0] + 0.02


def test_losses_of_patches_are_cross_entropies():
    logits, label = example(10)
    label[0, :3] = 255
    got = losses_of_patches(Pixels.of(logits, label, class_options=ClassOptions(exclusive=True)))
    expected = [
        cross_entropy(a[None], b[None].long(), ignore_index=255)
        for a, b in zip(logits, label, strict=True)
    ]
    assert torch.allclose(got, torch.stack(expected), atol=1e-5)
