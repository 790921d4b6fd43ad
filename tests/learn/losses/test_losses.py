import math

import pytest
import segmentation_models_pytorch.losses as smp_losses
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from wsi_seg.config import LossConfig
from wsi_seg.config.loss import EXCLUSIVE
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.losses.pixels import Pixels

NAMES = [name for name in LossConfig.model_fields if name not in EXCLUSIVE]

# These are negative for a correct prediction, or include the length of the true contour.
WITHOUT_ZERO = {"boundary", "active_contour"}


def example(seed=0, classes=2, shape=(7, 5), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, *shape, generator=generator, dtype=dtype)
    label = torch.randint(0, classes + 1, (2, *shape), generator=generator, dtype=torch.uint8)
    return logits, label


def one_hot(label, classes):
    return torch.stack([(label == c + 1).float() for c in range(classes)], dim=1)


def loss_of(name, logits, label, *, weight=None, **options):
    config = LossConfig.model_validate({name: {"weight": 1.0} | options})
    return SegmentationLoss(config)(Pixels.of(logits, label, weight=weight))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_perfect_logits_are_near_the_minimum(name):
    _, label = example(1, shape=(16, 16))
    perfect = 40 * (2 * one_hot(label, 2) - 1)
    best = loss_of(name, perfect, label).item()
    if name not in WITHOUT_ZERO:
        assert best == pytest.approx(0, abs=1e-5)
    for seed in range(3):
        some = loss_of(name, example(seed, shape=(16, 16))[0], label).item()
        assert best <= some if name == "bce_empty" else best < some
    wrong = torch.full_like(perfect, -40) if name == "bce_empty" else -perfect
    assert best < loss_of(name, wrong, label).item()


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
    logits = torch.full((2, 1, 5, 4), value, dtype=dtype, requires_grad=True)
    loss = loss_of(name, logits, torch.full((2, 5, 4), fill, dtype=torch.uint8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_weight_of_two_is_the_pixel_twice(name):
    if name in {"boundary", "hausdorff", "active_contour", "bce_empty", "bce_topk", "cl_dice"}:
        pytest.skip("depends on where pixels are, or on their number")
    logits, label = example(3, shape=(6, 5))
    weight = torch.ones(2, 6, 5)
    weight[:, 2] = 2
    rows = [0, 1, 2, 2, 3, 4, 5]
    twice = loss_of(name, logits[:, :, rows], label[:, rows])
    if name == "dice_positive":  # averages over patches, whatever their pixels
        assert label.flatten(1).eq(1).any()
    assert loss_of(name, logits, label, weight=weight).item() == pytest.approx(
        twice.item(), abs=1e-5
    )


def test_gradients_are_right(name):
    logits, label = example(4, shape=(4, 3), dtype=torch.float64)
    label[:, 0] = 255
    logits.requires_grad_()
    if name.startswith("bce_hard"):  # its weights are detached from the gradient
        px = Pixels.of(logits, label)
        frozen = (logits.sigmoid() - px.target).detach().abs()
        values, weight = px.bce * frozen, px.weight.expand_as(px.target)
        if name == "bce_hard":
            loss = (values * weight).sum() / (frozen * weight).sum()
        else:
            sides = [weight * px.target, weight * (1 - px.target)]
            means = [(values * one).sum((0, 2, 3)) / one.sum((0, 2, 3)) for one in sides]
            loss = torch.stack(means).mean()
        expected = torch.autograd.grad(loss, logits)[0]
        got = torch.autograd.grad(loss_of(name, logits, label), logits)[0]
        assert torch.allclose(got, expected)
        return
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, label), logits)


def test_soft_targets_are_accepted_and_nan_is_ignored(name):
    logits, label = example(5)
    label[:, 0] = 255
    soft = one_hot(label, 2)
    soft[:, :, 0] = float("nan")
    assert loss_of(name, logits, soft).item() == pytest.approx(
        loss_of(name, logits, label).item(), abs=1e-6
    )


AREAS = ["dice", "dice_positive", "log_dice", "jaccard", "tversky", "mcc"]


@pytest.mark.parametrize("term", ["bce", "mse", *AREAS])
def test_the_loss_has_its_minimum_at_soft_targets(term):
    """Not at certain predictions, which the product of probability and target rewards."""
    teacher = example(8)[0]
    target = teacher.sigmoid()
    best = loss_of(term, teacher, target).item()
    if term in AREAS:
        assert best == pytest.approx(0, abs=1e-5)
    for factor in (0.3, 0.9, 1.1, 20):
        assert loss_of(term, factor * teacher, target).item() > best + 1e-4


# Equality with library implementations, where these are correct.


@given(seed=st.integers(0, 100))
def test_the_siim_loss_is_the_sum_of_its_definitions(seed):
    logits, label = example(seed)
    target = one_hot(label, 2)
    p = logits.sigmoid()
    dice = 1 - 2 * (p * target).sum((0, 2, 3)) / (p + target).sum((0, 2, 3))
    p_t = torch.where(target == 1, p, 1 - p)
    bce = binary_cross_entropy_with_logits(logits, target, reduction="none")
    expected = 3 * bce.mean() + dice.mean() + 4 * ((1 - p_t) ** 2 * bce).mean()
    config = LossConfig.model_validate({"bce": 3, "dice": 1, "focal": 4})
    got = SegmentationLoss(config)(Pixels.of(logits, label))
    assert got.item() == pytest.approx(expected.item(), abs=2e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("dice", {}, smp_losses.DiceLoss("multilabel")),
        ("jaccard", {}, smp_losses.JaccardLoss("multilabel")),
        ("tversky", {"fp": 0.2}, smp_losses.TverskyLoss("multilabel", alpha=0.2, beta=0.7)),
        ("log_dice", {}, smp_losses.DiceLoss("multilabel", log_loss=True)),
    ],
)  # fmt: skip
def test_area_terms_equal_smp(name, options, theirs):
    logits, label = example(6)
    expected = theirs(logits, one_hot(label, 2))
    assert loss_of(name, logits, label, **options).item() == pytest.approx(
        expected.item(), abs=1e-5
    )


def test_lovasz_mcc_and_focal_equal_smp_on_one_class():
    logits, label = example(7, classes=1)
    target = one_hot(label, 1)
    lovasz = smp_losses.LovaszLoss("binary", per_image=False)(logits, target[:, 0])
    assert loss_of("lovasz", logits, label).item() == pytest.approx(lovasz.item(), abs=1e-5)
    mcc = smp_losses.MCCLoss()(logits.sigmoid(), target)
    assert loss_of("mcc", logits, label).item() == pytest.approx(mcc.item(), abs=1e-4)
    focal = smp_losses.FocalLoss("binary", alpha=0.25, gamma=2.0)(logits, target)
    assert loss_of("focal", logits, label, alpha=0.25).item() == pytest.approx(
        focal.item(), abs=1e-5
    )


# Pitfalls of the published formulas.


def test_terms_are_on_logits_not_probabilities():
    """A second sigmoid squeezes 0..1 into .5...73 and cannot reach the minimum."""
    _, label = example(8)
    probabilities = one_hot(label, 2)
    for name in set(NAMES) - WITHOUT_ZERO - {"hausdorff", "mse"}:
        assert loss_of(name, probabilities, label).item() > 0.05, name


def test_log_dice_uses_the_coefficient():
    """BCE - log(Dice)" and "1 + BCE - Dice" mean the coefficient, not smp's 1 - Dice."""
    logits, label = example(9, classes=1)
    dice = 1 - loss_of("dice", logits, label).item()
    assert loss_of("log_dice", logits, label).item() == pytest.approx(-math.log(dice), abs=1e-5)


def test_bce_divides_by_pixels_that_count():
    logits, label = example(10)
    label[:, 3:] = 255
    kept = binary_cross_entropy_with_logits(logits[:, :, :3], one_hot(label, 2)[:, :, :3])
    assert loss_of("bce", logits, label).item() == pytest.approx(kept.item(), abs=1e-6)
    heavy = loss_of("bce", logits, label, pos_weight=3.0)
    kept = binary_cross_entropy_with_logits(
        logits[:, :, :3], one_hot(label, 2)[:, :, :3], pos_weight=torch.tensor(3.0)
    )
    assert heavy.item() == pytest.approx(kept.item(), abs=1e-6)


def test_lovasz_and_dice_skip_classes_without_positives():
    logits, label = example(11)
    label[:] = 0
    for name in ("lovasz", "dice", "dice_positive", "log_dice", "jaccard", "tversky", "mcc"):
        assert loss_of(name, logits, label).item() == 0
    assert loss_of("bce", logits, label).item() > 0


def test_dice_positive_ignores_empty_patches():
    logits, label = example(12, classes=1)
    label[1] = 0
    alone = loss_of("dice", logits[:1], label[:1]).item()
    assert loss_of("dice_positive", logits, label).item() == pytest.approx(alone, abs=1e-6)


def test_ten_times_as_many_negatives_keep_the_balanced_term():
    logits = torch.tensor([2.0, -1.0, 0.5]).reshape(1, 1, 1, 3)
    label = torch.tensor([1, 0, 0], dtype=torch.uint8).reshape(1, 1, 3)
    more = torch.cat([logits[..., :1], logits[..., 1:].repeat(1, 1, 1, 10)], dim=3)
    labels = torch.cat([label[..., :1], label[..., 1:].repeat(1, 1, 10)], dim=2)
    assert loss_of("bce_balanced", more, labels).item() == pytest.approx(
        loss_of("bce_balanced", logits, label).item(), abs=1e-6
    )
    assert loss_of("bce", more, labels).item() != pytest.approx(
        loss_of("bce", logits, label).item(), abs=1e-3
    )


def test_topk_is_the_mean_of_the_hardest():
    logits, label = example(13, classes=1)
    values = Pixels.of(logits, label).bce.flatten().sort(descending=True).values
    assert loss_of("bce_topk", logits, label, share=0.2).item() == pytest.approx(
        values[: math.ceil(0.2 * len(values))].mean().item(), abs=1e-6
    )


def test_the_empty_term_is_about_whether_a_class_is_present():
    logits = torch.full((2, 1, 3, 3), -4.0)
    logits[:, :, 1, 1] = 6.0
    label = torch.zeros(2, 3, 3, dtype=torch.uint8)
    label[0, 0, 0] = 1
    expected = binary_cross_entropy_with_logits(torch.tensor([6.0, 6.0]), torch.tensor([1.0, 0.0]))
    assert loss_of("bce_empty", logits, label).item() == pytest.approx(expected.item(), abs=1e-6)
    head = torch.tensor([[3.0], [-2.0]])
    px = Pixels.of(logits, label, class_logits=head)
    expected = binary_cross_entropy_with_logits(head[:, 0], torch.tensor([1.0, 0.0]))
    got = SegmentationLoss(LossConfig.model_validate({"bce_empty": 1}))(px)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)


def test_distances_grow_with_the_error():
    label = torch.zeros(1, 21, 31, dtype=torch.uint8)
    label[:, 8:13, 4:9] = 1
    near, far = torch.full((2, 1, 1, 21, 31), -9.0)
    near[..., 8:13, 9:12] = far[..., 8:13, 24:27] = 9.0
    for name in ("boundary", "hausdorff"):
        assert loss_of(name, near, label) < loss_of(name, far, label)
    assert loss_of("dice", near, label).item() == pytest.approx(
        loss_of("dice", far, label).item(), abs=1e-6
    )


def test_the_contour_term_is_the_length():
    label = torch.zeros(1, 20, 20, dtype=torch.uint8)
    label[:, 5:15, 5:15] = 1
    logits = 60 * (2 * one_hot(label, 1) - 1)
    bare = loss_of("active_contour", logits, label, length=0.0).item()
    assert bare == pytest.approx(0, abs=1e-6)
    length = (loss_of("active_contour", logits, label).item() - bare) * 19 * 19
    # Four sides of 10 px; the two gradients at a corner form one diagonal.
    assert length == pytest.approx(40, abs=2)


# The sum.


def test_a_number_is_a_weight_and_other_terms_are_left_out():
    config = LossConfig.model_validate({"bce": 2.7, "dice": {"weight": 0.9}, "bce_empty": 0.1})
    assert list(config.terms) == ["bce", "bce_empty", "dice"]
    logits, label = example(14)
    loss = SegmentationLoss(config)
    terms = loss.terms(Pixels.of(logits, label))
    total = 2.7 * terms["bce"] + 0.9 * terms["dice"] + 0.1 * terms["bce_empty"]
    assert loss.total(terms).item() == pytest.approx(total.item(), rel=1e-6)


def test_no_term_is_refused():
    with pytest.raises(ValueError, match="all loss weights are 0"):
        LossConfig.model_validate({"bce": 0})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"expected a target \(1, 2, 4, 4\)"):
        loss_of("bce", torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
