import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from wsi_seg.config.augment import (
    AffineConfig,
    BlurConfig,
    BrightnessContrastConfig,
    Chance,
    CompressionConfig,
    DropoutConfig,
    GammaConfig,
    HsvConfig,
    NoiseConfig,
    OneOfConfig,
    StainConfig,
    StepConfig,
)
from wsi_seg.data import colours
from wsi_seg.data.augment import change_stains
from wsi_seg.data.batches import BatchAugmenter, split_steps
from wsi_seg.data.presets import PRESETS

SIDE = 37


def places(count, side=SIDE):
    """Return images whose pixels encode their position, and labels that agree."""
    y, x = np.mgrid[:side, :side]
    image = np.stack([y * 6, x * 6, (y + x) * 3]).astype(np.uint8)
    label = (y * side + x) % 200
    one = torch.from_numpy(image), torch.from_numpy(label.astype(np.uint8))
    return tuple(torch.stack([part] * count) for part in one)


def tissue(count=4, side=64):
    image = torch.from_numpy(data.immunohistochemistry()[:side, :side]).permute(2, 0, 1)
    return torch.stack([image] * count).float() / 255


def step(**chosen):
    return StepConfig(**chosen)


@pytest.mark.parametrize("name", ["hflip", "vflip", "rot90", "d4"])
@given(seed=st.integers(0, 1000))
def test_flips_and_rotations_are_exact_and_apply_to_labels(name, seed):
    torch.manual_seed(seed)
    images, labels = places(6)
    changed, truth = BatchAugmenter([step(**{name: Chance(p=0.7)})])(images, labels, side=SIDE)
    for image, label in zip(changed, truth, strict=True):
        y, x = image[0] / 6, image[1] / 6
        assert torch.equal(label.float(), (y * SIDE + x).round() % 200)
        assert sorted(label.flatten().tolist()) == sorted(labels[0].flatten().tolist())


def test_all_eight_symmetries_occur():
    torch.manual_seed(0)
    images, labels = places(200)
    changed, _ = BatchAugmenter([step(d4=Chance(p=1))])(images, labels, side=SIDE)
    assert len({tuple(image[:2, 0, 1].tolist()) for image in changed}) == 8


@given(seed=st.integers(0, 1000))
def test_affine_keeps_image_and_label_aligned_without_interpolating_classes(seed):
    torch.manual_seed(seed)
    augmenter = BatchAugmenter([step(affine=AffineConfig(p=1, rotate=90, shift=0.1))])
    cut = augmenter.side_to_cut(SIDE)
    y, x = np.mgrid[:cut, :cut]
    disc = (y - cut * 0.45) ** 2 + (x - cut * 0.55) ** 2 < (cut / 5) ** 2
    labels = torch.from_numpy(np.where(disc, 255, 7).astype(np.uint8))[None].repeat(4, 1, 1)
    images = torch.from_numpy(np.where(disc, 200, 40).astype(np.uint8)).repeat(4, 3, 1, 1)
    changed, truth = augmenter(images, labels, side=SIDE)
    assert changed.shape == (4, 3, SIDE, SIDE)
    assert set(truth.unique().tolist()) <= {7, 255}
    apart = (changed[:, 0] > 120) != (truth == 255)
    assert apart.float().mean() < 0.01


def test_ignored_probabilities_stay_ignored():
    torch.manual_seed(1)
    augmenter = BatchAugmenter([step(affine=AffineConfig(p=1)), step(d4=Chance(p=1))])
    side = augmenter.side_to_cut(SIDE)
    labels = torch.full((3, 2, side, side), 0.25)
    labels[:, :, : side // 2] = torch.nan
    _, truth = augmenter(places(3, side)[0], labels, side=SIDE)
    assert truth.isnan().any()
    assert torch.equal(truth[~truth.isnan()].unique(), torch.tensor([0.25]))


def test_a_patch_depends_only_on_torchs_seed():
    images, labels = places(5)
    _, steps = split_steps("light")
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(BatchAugmenter(steps)(images, labels, side=SIDE)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_probability_is_per_patch():
    torch.manual_seed(0)
    images, labels = places(400)
    light = BrightnessContrastConfig(p=0.3, brightness=0.2)
    changed, _ = BatchAugmenter([step(brightness_contrast=light)])(images, labels, side=SIDE)
    share = (changed.round() != images).flatten(1).any(1).float().mean()
    assert 0.2 < share < 0.4


def test_hue_saturation_and_value_equal_opencv(monkeypatch):
    monkeypatch.setattr(colours, "uniform", lambda count, low, high: torch.full((count,), high))
    images = tissue(1)
    found = colours.change_colours(images, step(hsv=HsvConfig(hue=9, saturation=20, value=10)))
    hsv = cv2.cvtColor((images[0].permute(1, 2, 0) * 255).byte().numpy(), cv2.COLOR_RGB2HSV)
    hsv = hsv.astype(int) + np.array([9, 20, 10])
    hsv[..., 0] %= 180
    expected = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    apart = (found[0].permute(1, 2, 0) * 255 - torch.from_numpy(expected)).abs()
    assert apart.mean() < 1.5


def test_stain_jitter_equals_that_of_single_patches(monkeypatch):
    monkeypatch.setattr(colours, "uniform", lambda count, low, high: torch.full((count,), high))
    images = tissue(2)
    found = colours.change_colours(images, step(stain=StainConfig(scale=0.2, offset=0.02)))
    image = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    expected = change_stains(image, [1.2] * 3, [0.02] * 3)
    assert (found[1].permute(1, 2, 0) * 255 - torch.from_numpy(expected)).abs().max() <= 1


@pytest.mark.parametrize(
    "one",
    [
        step(brightness_contrast=BrightnessContrastConfig(p=1)),
        step(gamma=GammaConfig(p=1)),
        step(noise=NoiseConfig(p=1)),
        step(blur=BlurConfig(p=1)),
        step(channel_shuffle=Chance(p=1)),
        step(slice_flip=Chance(p=1)),
        step(dropout=DropoutConfig(p=1)),
        step(hsv=HsvConfig(p=1)),
        step(stain=StainConfig(p=1)),
    ],
    ids=lambda one: next(iter(one.model_fields_set)),
)
def test_colour_steps_change_only_images_and_stay_in_range(one):
    torch.manual_seed(0)
    images, labels = places(4)
    changed, truth = BatchAugmenter([one])(images, labels, side=SIDE)
    assert torch.equal(truth, labels)
    assert not torch.equal(changed, images.float())
    assert changed.min() >= 0
    assert changed.max() <= 255.01


def test_blur_keeps_a_constant_image():
    images = torch.full((2, 3, 20, 20), 0.4)
    assert torch.allclose(colours.change_colours(images, step(blur=BlurConfig(p=1))), images)


def test_unsupported_steps_run_in_the_loader():
    workers, device = split_steps("stain")
    assert [one.model_fields_set for one in workers] == [{"one_of"}]
    assert {"d4"} in [one.model_fields_set for one in device]
    for preset in PRESETS:
        workers, device = split_steps(preset)
        assert len(workers) + len(device) == len(PRESETS[preset])
    mixed = step(
        one_of=OneOfConfig(of=(step(compression=CompressionConfig()), step(blur=BlurConfig())))
    )
    assert split_steps((mixed,)) == ((mixed,), ())


def test_without_steps_the_batch_is_unchanged():
    images, labels = places(2)
    assert BatchAugmenter(())(images, labels, side=SIDE) == (images, labels)
