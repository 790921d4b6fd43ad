import json
from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2lab

from wsi_seg.config import load_recipe
from wsi_seg.config.augment import AffineConfig, Preset, StepConfig
from wsi_seg.data.augment import Augmenter, change_stains
from wsi_seg.data.batches import BatchAugmenter
from wsi_seg.errors import ConfigError

SIDE = 24
Y, X = np.mgrid[:SIDE, :SIDE]
IMAGE = np.stack([Y * 10, X * 10, (Y * SIDE + X) % 256], axis=-1).astype(np.uint8)
LABEL = (Y * SIDE + X).astype(np.uint8)

SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=4, max_size=4)


def symmetries(array):
    turned = [np.rot90(array, k) for k in range(4)]
    return turned + [np.flipud(one) for one in turned]


def change(augment, *, seeds, image=IMAGE, label=LABEL, side=SIDE):
    """Augment pixels, tiled to the larger patch that the steps need."""
    augmenter = Augmenter(augment)
    times = -(-augmenter.side_to_cut(side) // side)
    cut = np.s_[: augmenter.side_to_cut(side), : augmenter.side_to_cut(side)]
    wide = np.tile(image, (times, times, 1))[cut], np.tile(label, (times, times))[cut]
    return augmenter(*wide, side=side, seeds=seeds)


@given(seeds=SEEDS)
@pytest.mark.parametrize("preset", get_args(Preset))
def test_augmentation_depends_only_on_the_seeds(preset, seeds):
    once = change(preset, seeds=seeds)
    augmenter = Augmenter(preset)
    side = augmenter.side_to_cut(SIDE)
    big = np.full((side, side, 3), 77, np.uint8), np.zeros((side, side), np.uint8)
    augmenter(*big, side=SIDE, seeds=[5, 6, 7, 8])
    again = change(preset, seeds=seeds)
    for ours, theirs in zip(once, again, strict=True):
        assert ours.dtype == np.uint8
        assert ours.shape[:2] == (SIDE, SIDE)
        assert np.array_equal(ours, theirs)


@given(seeds=SEEDS)
def test_d4_transforms_image_and_label_together_without_interpolation(seeds):
    image, label = change("d4", seeds=seeds)
    moves = [np.array_equal(label, other) for other in symmetries(LABEL)]
    assert sum(moves) == 1
    assert np.array_equal(image, symmetries(IMAGE)[moves.index(True)])


def test_d4_reaches_all_eight_symmetries():
    seen = {change("d4", seeds=[k])[1].tobytes() for k in range(100)}
    assert seen == {np.ascontiguousarray(one).tobytes() for one in symmetries(LABEL)}


@given(seeds=SEEDS)
def test_light_does_not_interpolate_class_ids(seeds):
    _, label = change("light", seeds=seeds)
    assert any(np.array_equal(label, other) for other in symmetries(LABEL))


def test_none_changes_nothing():
    image, label = change("none", seeds=[1])
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(label, LABEL)


COLOURS: dict[str, Any] = {
    "mean": [60, 25, -10, 8, 8, 5], "deviation": [5, 4, 3, 2, 1, 1],
}  # fmt: skip


STEPS: list[dict[str, Any]] = [
    {"hflip": {"p": 1}}, {"vflip": {"p": 1}}, {"rot90": {"p": 1}}, {"d4": {"p": 1}},
    {"affine": {"p": 1}}, {"perspective": {"p": 1}}, {"spline": {"p": 1}},
    {"elastic": {"p": 1}}, {"grid": {"p": 1}}, {"optical": {"p": 1}},
    {"brightness_contrast": {"p": 1}}, {"hsv": {"p": 1}},
    {"gamma": {"p": 1}}, {"clahe": {"p": 1}}, {"stain": {"p": 1}}, {"channel_shuffle": {"p": 1}},
    {"slice_flip": {"p": 1}}, {"restain": {"p": 1} | COLOURS},
    {"noise": {"p": 1}}, {"blur": {"p": 1}}, {"compression": {"p": 1}}, {"dropout": {"p": 1}},
    {"one_of": {"p": 1, "of": [{"hflip": {}}, {"noise": {}}]}},
]  # fmt: skip


def test_steps_inside_one_of_draw_from_their_whole_range():
    """Whether one_of is applied must not decide how strong its step is."""
    light = {"brightness_contrast": {"brightness": 0, "contrast": 0.2}}
    step = StepConfig.model_validate_json(json.dumps({"one_of": {"p": 0.2, "of": [light]}}))
    grey, label = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), np.uint8)
    augmenter = Augmenter((step,))
    seeds = np.random.default_rng(0).integers(0, 2**31, (500, 4)).tolist()
    values = [int(augmenter(grey, label, side=4, seeds=four)[0].mean()) for four in seeds]
    changed = [value for value in values if value != 100]
    assert 60 < len(changed) < 140
    assert min(changed) < 84
    assert max(changed) > 116


def test_every_key_is_tested():
    assert {next(iter(step)) for step in STEPS} == set(StepConfig.model_fields)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: next(iter(step)))
def test_image_and_label_stay_aligned_and_ids_are_never_interpolated(step):
    """The image shows two classes in two colours, which must agree after any step."""
    label = np.where((Y // 5 + X // 7) % 2, 7, 200).astype(np.uint8)
    image = np.where(label[..., None] == 7, [60, 90, 120], [180, 150, 200]).astype(np.uint8)
    config = StepConfig.model_validate_json(json.dumps(step))
    changed = False
    for seed in range(5):
        found, ids = change((config,), seeds=[seed], image=image, label=label)
        assert set(np.unique(ids)) <= {7, 200}
        changed |= not np.array_equal(found, image)
        if "dropout" not in step:  # holes are black
            dark, bright = found[ids == 7].mean(), found[ids == 200].mean()
            assert dark < bright
    assert changed


def test_restain_draws_from_the_distribution_of_the_training_set():
    """Over many draws, means and deviations of patches have the given distribution."""
    rng = np.random.default_rng(0)
    drawn = np.clip(rng.normal((170, 120, 160), (20, 18, 15), (40, 40, 3)), 0, 255)
    image, label = drawn.astype(np.uint8), np.zeros((40, 40), np.uint8)
    step = StepConfig.model_validate_json(json.dumps({"restain": {"p": 1} | COLOURS}))
    augmenter = Augmenter((step,))
    found = []
    for seed in range(200):
        changed, _ = augmenter(image, label, side=40, seeds=[seed])
        lab = rgb2lab(changed).reshape(-1, 3)
        found.append([*lab.mean(axis=0), *lab.std(axis=0)])
    again, _ = augmenter(image, label, side=40, seeds=[199])
    assert np.array_equal(changed, again)
    middle, spread = np.mean(found, axis=0), np.std(found, axis=0)
    # Deviations are limited to twice those of the patch, and colours to the RGB range.
    assert middle[:3] == pytest.approx(COLOURS["mean"][:3], abs=1.5)
    assert spread[:3] == pytest.approx(COLOURS["deviation"][:3], rel=0.25)
    assert middle[3] == pytest.approx(COLOURS["mean"][3], abs=2)
    with pytest.raises(ConfigError, match="expected six numbers"):
        Augmenter((StepConfig.model_validate({"restain": {}}),))


def test_spatial_steps_get_a_larger_patch():
    assert Augmenter("light").side_to_cut(512) == 512
    assert Augmenter("siim").side_to_cut(512) == 768
    grey, ids = np.full((36, 36, 3), 90, np.uint8), np.zeros((36, 36), np.uint8)
    grey[:2], grey[-2:], grey[:, :2], grey[:, -2:] = 255, 255, 255, 255
    turn = StepConfig(affine=AffineConfig(p=1, rotate=20, scale=(1, 1), shift=0))
    for seed in range(20):
        assert (Augmenter((turn,))(grey, ids, side=24, seeds=[seed])[0] == 90).all()


def test_unchanged_stains_keep_pixels_and_more_eosin_is_pinker():
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(change_stains(every, [1, 1, 1], [0, 0, 0]), every)
    pink = np.full((4, 4, 3), (220, 140, 180), np.uint8)
    more = change_stains(pink, [1, 1.3, 1], [0, 0, 0])
    assert more[0, 0, 1] < pink[0, 0, 1]
    assert change_stains(pink, [1, 1, 1], [0.1, 0, 0]).mean() < pink.mean()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("heavyy", "augment"),
        ("[{elastc: {}}]", "nearest valid key: 'elastic'"),
        ("[{elastic: {alfa: 3}}]", "nearest valid key: 'alpha'"),
        ("[{hflip: {}, vflip: {}}]", "expected one key"),
        ("[{}]", "expected one key"),
        ("[{noise: {std: [0, 3]}}]", "less than or equal to 1"),
    ],
)
def test_invalid_steps_are_reported(tmp_path, text, reason):
    path = tmp_path / "recipe.yaml"
    path.write_text("classes: [{name: a}]\ndata: {stores: [s.zarr]}\nmpp: null\n")
    with pytest.raises(ConfigError, match=reason):
        load_recipe(path, [f"augment={text}"])


def quarters(found):
    """Return the number of 90-degree rotations from the label to the result."""
    (number,) = (k for k in range(4) if np.array_equal(np.rot90(LABEL, k), found))
    return number


def test_three_of_ten_stas_patches_rotate_by_90_180_or_270_degrees():
    """As the AI CUP 2022 team: p .3, and never by 0 degrees; the same for batches."""
    turns = Counter(quarters(change("stas", seeds=[seed])[1]) for seed in range(4000))
    assert 1 - turns[0] / 4000 == pytest.approx(0.3, abs=0.02)
    for number in (1, 2, 3):
        assert turns[number] / 4000 == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("keep", [True, False])
def test_keep_ratio_scales_both_sides_by_the_same_factor(keep):
    """A disc stays a disc with keep_ratio, and becomes an ellipse without, also in batches."""
    step = StepConfig(
        affine=AffineConfig(p=1, rotate=0, scale=(0.6, 1.6), shift=0, keep_ratio=keep)
    )
    y, x = np.mgrid[:96, :96] - 47.5
    disc = (np.hypot(y, x) < 12).astype(np.uint8)
    grey = np.repeat(disc[..., None] * np.uint8(200), 3, axis=2)
    augmenter = Augmenter((step,))
    found = [augmenter(grey, disc, side=64, seeds=[seed])[1] for seed in range(12)]
    torch.manual_seed(0)
    batch = torch.from_numpy(grey.transpose(2, 0, 1))[None].repeat(12, 1, 1, 1)
    labels = torch.from_numpy(disc)[None].repeat(12, 1, 1)
    found += list(BatchAugmenter((step,))(batch, labels, side=64)[1].numpy())
    ratios = np.array([one.any(axis=1).sum() / one.any(axis=0).sum() for one in found])
    for part in (ratios[:12], ratios[12:]):
        assert bool(np.abs(np.log(part)).max() < 0.15) == keep
