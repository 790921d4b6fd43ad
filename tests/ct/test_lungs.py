"""Lungs of a phantom of two cylinders, and each part of the rule by what it changes."""

import numpy as np
import pytest

from wsi_seg.ct.config import LungRule
from wsi_seg.ct.lungs import find_lungs

SPACING = (5.0, 2.0, 2.0)
SHAPE = (44, 150, 190)  # 220 x 300 x 380 mm


def cylinder(volume, y_mm, x_mm, radius_mm, value, *, first=4, last=40):
    """Fill a cylinder along z, its place in mm from the middle of the image."""
    _, height, width = SHAPE
    y = (np.arange(height) - (height - 1) / 2) * SPACING[1] - y_mm
    x = (np.arange(width) - (width - 1) / 2) * SPACING[2] - x_mm
    volume[first:last, np.hypot(y[:, None], x[None, :]) < radius_mm] = value


def chest(*, lungs=((0, -75), (0, 75)), radius=50):
    volume = np.full(SHAPE, -1000, np.float32)
    y = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) / 65
    x = (np.arange(SHAPE[2]) - (SHAPE[2] - 1) / 2) / 85
    volume[:, (y[:, None] ** 2 + x[None, :] ** 2) < 1] = 40
    for y_mm, x_mm in lungs:
        cylinder(volume, y_mm, x_mm, radius, -850)
    return volume


def test_two_cylinders_are_two_lungs_of_their_volume():
    found = find_lungs(chest(), SPACING, LungRule())
    true = np.pi * 50**2 * 36 * 5 * 1e-6
    assert found.litres == pytest.approx((true, true), rel=0.03)
    assert found.flags == ()
    assert found.mask.sum() * np.prod(SPACING) * 1e-6 == pytest.approx(2 * true, rel=0.03)
    assert not found.mask[:4].any()
    assert not found.mask[40:].any()


def test_noise_does_not_change_what_is_lung():
    noisy = chest() + np.random.default_rng(0).normal(0, 60, SHAPE).astype(np.float32)
    a, b = (find_lungs(v, SPACING, LungRule()).mask for v in (chest(), noisy))
    assert (a != b).mean() < 0.01


def test_a_nodule_on_the_wall_needs_the_higher_threshold():
    volume = chest()
    cylinder(volume, 0, -32, 14, -300, first=18, last=24)  # partly outside, on the inner wall
    nodule = volume == -300
    low = find_lungs(volume, SPACING, LungRule(close_mm=1)).mask[nodule].mean()
    high = find_lungs(volume, SPACING, LungRule(threshold_hu=-150, close_mm=1)).mask[nodule].mean()
    assert low < 0.5 < 0.95 < high


def test_vessels_inside_are_filled_in():
    volume = chest()
    cylinder(volume, 5, -75, 6, 30, first=4, last=40)
    assert find_lungs(volume, SPACING, LungRule()).mask[volume == 30].mean() == 1


def test_a_large_piece_far_from_the_middle_needs_the_wider_rule():
    volume = chest(lungs=((0, -45), (0, 118)), radius=46)  # the right one begins 72 mm off
    near = find_lungs(volume, SPACING, LungRule())
    wide = find_lungs(volume, SPACING, LungRule(off_axis_mm=92))
    assert len(near.litres) == 1
    assert near.flags == ("only one side has lung",)
    assert len(wide.litres) == 2


def test_only_so_many_pieces_are_kept_and_the_ends_can_be_blank():
    volume = chest()
    one = find_lungs(volume, SPACING, LungRule(keep=1))
    assert len(one.litres) == 1
    short = find_lungs(volume, SPACING, LungRule(blank=(10, 14)))
    assert not short.mask[:10].any()
    assert not short.mask[30:].any()
    assert short.mask[10:30].any()


def test_pieces_of_an_unlikely_volume_and_flat_ones_are_dropped():
    small = chest(radius=20)  # 0.23 l each
    assert find_lungs(small, SPACING, LungRule()).flags == ("no lung found",)
    assert len(find_lungs(small, SPACING, LungRule(volume_l=(0.1, 8.2))).litres) == 2
    slit = chest(lungs=())
    slit[4:40, 70:71, 30:160] = -850
    assert find_lungs(slit, SPACING, LungRule(volume_l=(1e-3, 8.2))).litres == ()


def test_nothing_is_found_in_air_alone():
    found = find_lungs(np.full(SHAPE, -1000, np.float32), SPACING, LungRule())
    assert not found.mask.any()
    assert found.flags == ("no lung found",)
