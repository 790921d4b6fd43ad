"""The seam score sees tiles where they show, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cards import make_card
from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import plan_slide
from wsi_seg.inference.seams import Steps, StepSums, seam_score

CARD = make_card(mpp=None, tile_px=32)


def plan(height, width, overlap=0.0):
    store = MemoryStore(MemoryImage(np.zeros((height, width, 3), np.uint8)))
    return plan_slide(store, CARD, InferOptions(overlap=overlap), strip_px=64)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(100, 110, (height, width, 1), dtype=np.uint8)


def score(pixels, made, *, cuts=()):
    """Score of a prediction whose strips were measured apart after each of ``cuts``."""
    image, steps, sums = MemoryImage(pixels), {}, None
    for index, (y, y_end) in enumerate(made.strips):
        if sums is None or index in cuts:
            sums = StepSums(made, range(made.extent.width), torch.device("cpu"))
        follows = sums.follows(y)
        rows = torch.from_numpy(pixels[y:y_end]).permute(2, 0, 1)
        parts = [sums.of(y + n, rows[:, n : n + 7], first=n == 0) for n in range(0, y_end - y, 7)]
        elsewhere, border, joint = torch.stack(list(parts)).sum(0).tolist()
        steps[index] = Steps(elsewhere, border, joint if follows else None)
    return seam_score(image, made, steps)


def test_a_step_at_every_border_is_seen():
    pixels = noise(128, 160)
    pixels[:, 32:64] += 60  # one column of tiles is off
    found = score(pixels, plan(128, 160))
    assert found is not None
    assert found > 3
    flat = score(noise(128, 160), plan(128, 160))
    assert flat == pytest.approx(1, abs=0.05)


def test_a_step_inside_a_tile_is_not_a_seam():
    pixels = noise(128, 160)
    pixels[50:, :] += 60
    found = score(pixels, plan(128, 160))
    assert found is not None
    assert found < 1


def test_without_borders_or_steps_there_is_no_score():
    assert score(noise(30, 20), plan(30, 20)) is None
    assert score(np.full((128, 160, 1), 9, np.uint8), plan(128, 160)) is None


@given(
    height=st.integers(33, 150),
    width=st.integers(33, 150),
    overlap=st.sampled_from([0, 0.25, 0.5]),
    cuts=st.sets(st.integers(0, 4)),
)
def test_who_measured_which_strip_changes_nothing(height, width, overlap, cuts):
    pixels = noise(height, width, seed=height)
    made = plan(height, width, overlap)
    found = score(pixels, made, cuts=cuts)
    assert found == score(pixels, made)
    assert found == pytest.approx(expected(pixels.astype(int)[..., 0], made))


def test_a_strip_whose_steps_are_not_known_leaves_no_score():
    assert seam_score(MemoryImage(noise(128, 160)), plan(128, 160), {0: Steps(1, 1, None)}) is None


def expected(p, made):
    """Score of a whole array, pixel by pixel."""
    groups: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
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
    """The same pixels under a plan with other tiles have another score."""
    pixels = noise(128, 160)
    pixels[:, 32:64] += 60
    made = plan(128, 160)
    moved = replace(made, xs=tuple(x + 3 for x in made.xs[:-1]) + made.xs[-1:])
    assert score(pixels, moved) != score(pixels, made)
