"""The seam score sees windows where they show, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.classes import ClassTable
from wsi_seg.infer.plan import InferOptions, plan_slide
from wsi_seg.infer.seams import seam_score
from wsi_seg.models import ModelCard
from wsi_seg.testing.memory import MemoryImage, MemoryStore

CARD = ModelCard(
    architecture="Unet",
    encoder="resnet18",
    in_channels=3,
    classes=ClassTable.named(["thing"]),
    mpp=None,
    tile_px=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def plan(height, width, overlap=0.0):
    store = MemoryStore(MemoryImage(np.zeros((height, width, 3), np.uint8)))
    return plan_slide(store, CARD, InferOptions(overlap=overlap), strip_px=64)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(100, 110, (height, width, 1), dtype=np.uint8)


def test_a_step_at_every_border_is_seen():
    pixels = noise(128, 160)
    pixels[:, 32:64] += 60  # one column of windows is off
    found = seam_score(MemoryImage(pixels), plan(128, 160))
    assert found is not None
    assert found > 3
    flat = seam_score(MemoryImage(noise(128, 160)), plan(128, 160))
    assert flat == pytest.approx(1, abs=0.05)


def test_a_step_inside_a_window_is_no_seam():
    pixels = noise(128, 160)
    pixels[50:, :] += 60
    found = seam_score(MemoryImage(pixels), plan(128, 160))
    assert found is not None
    assert found < 1


def test_without_borders_or_steps_there_is_no_score():
    assert seam_score(MemoryImage(noise(30, 20)), plan(30, 20)) is None
    assert seam_score(MemoryImage(np.full((128, 160, 1), 9, np.uint8)), plan(128, 160)) is None


@given(
    height=st.integers(33, 150),
    width=st.integers(33, 150),
    overlap=st.sampled_from([0, 0.25, 0.5]),
    band=st.integers(1, 200),
)
def test_bands_change_nothing(height, width, overlap, band):
    pixels = noise(height, width, seed=height)
    made = plan(height, width, overlap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_seg.infer.seams._BAND_PX", band)
        found = seam_score(MemoryImage(pixels), made)
    assert found == pytest.approx(expected(pixels.astype(int)[..., 0], made))


def expected(p, made):
    """Score of a whole array, px by px."""
    groups = {True: [], False: []}
    for axis, starts in ((0, made.ys), (1, made.xs)):
        steps = np.abs(np.diff(p, axis=axis)).mean(axis=1 - axis) * p.shape[1 - axis]
        for index, step in enumerate(steps, 1):
            on = any(index in (start, start + made.tile_px) for start in starts)
            groups[on].append((step, p.shape[1 - axis]))
    means = {
        on: sum(s for s, _ in found) / sum(n for _, n in found) for on, found in groups.items()
    }
    return means[True] / means[False]


def test_the_plan_is_all_that_counts():
    """The same px under a plan with other windows have another score."""
    pixels = noise(128, 160)
    pixels[:, 32:64] += 60
    made = plan(128, 160)
    moved = replace(made, xs=tuple(x + 3 for x in made.xs[:-1]) + made.xs[-1:])
    assert seam_score(MemoryImage(pixels), moved) != seam_score(MemoryImage(pixels), made)
