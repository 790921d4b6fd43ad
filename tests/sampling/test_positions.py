"""No position bias: over many draws, the mean label is uniform over the patch."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.config.sampling import GridConfig
from wsi_seg.geometry import Extent
from wsi_seg.sampling import GridSampler, PatchSampler, SlideMap

DRAWS = 120_000
PARTS = 8

# Object and patch sides in cells of 16 px: objects smaller than, equal to and larger than patches.
SIZES = [(12, 128), (60, 128), (128, 128), (300, 128), (700, 128), (40, 512), (200, 400), (24, 48)]


def ellipse(shape, box):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    top, left, bottom, right = box
    tall, wide = (bottom - top) / 2, (right - left) / 2
    return ((y - top - tall) / tall) ** 2 + ((x - left - wide) / wide) ** 2 <= 1


def shares(mask, cell):
    """Return the fraction of each cell that a mask covers, in 1/255."""
    rows, columns = (-(-side // cell) for side in mask.shape)
    padded = np.zeros((rows * cell, columns * cell))
    padded[: mask.shape[0], : mask.shape[1]] = mask
    means = padded.reshape(rows, cell, columns, cell).mean(axis=(1, 3))
    return np.ceil(means * 255).astype(np.uint8)


def painted(*, height=1200, width=1000, side=100, objects=6, seed=0, cell=16):
    """Paint a lobe of tissue with objects of this size; return the map and the label."""
    rng = np.random.default_rng(seed)
    shape = height, width
    tissue = ellipse(shape, (-0.1 * height, 0.1 * width, 0.8 * height, 0.95 * width))
    label, drawn = np.zeros(shape, bool), list[np.ndarray]()
    while len(drawn) < objects:
        top, left = rng.uniform(0, height - side), rng.uniform(0, width - side)
        box = np.array([top, left, top + side, left + side * rng.uniform(0.7, 1)])
        if side < 250 and not tissue[int(top + side / 2), int(left + side / 2)]:
            continue
        drawn.append(box)
        label |= ellipse(shape, box)
    boxes = np.array(drawn).reshape(-1, 4)
    hard = np.zeros_like(shares(tissue, cell))
    hard[rng.random(hard.shape) < 0.15] = 200
    found = SlideMap(
        name="a",
        extent=Extent(height=height, width=width),
        px_area=1.0,
        cell_px=float(cell),
        tissue=shares(tissue | label, cell),
        boxes=boxes,
        class_ids=np.ones(len(boxes), np.uint8),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        sources=np.full(len(boxes), "expert"),
        covered=shares(label, cell),
        hard_negatives=hard,
        regions={"cortex": shares(tissue, cell)},
    )
    return found, label


def mean_by_place(label, draws, side):
    """Average the label over parts of patches, ``(PARTS, PARTS)``, mirrored past the border."""
    padded = np.pad(label.astype(np.float64), side, mode="reflect")
    sums = np.zeros((padded.shape[0] + 1, padded.shape[1] + 1))
    sums[1:, 1:] = padded.cumsum(axis=0).cumsum(axis=1)
    top = np.rint(draws.y - side / 2).astype(int) + side
    left = np.rint(draws.x - side / 2).astype(int) + side
    edges = np.rint(np.arange(PARTS + 1) * side / PARTS).astype(int)
    found = np.empty((PARTS, PARTS))
    for row in range(PARTS):
        for column in range(PARTS):
            y, y_end = top + edges[row], top + edges[row + 1]
            x, x_end = left + edges[column], left + edges[column + 1]
            inside = sums[y_end, x_end] - sums[y, x_end] - sums[y_end, x] + sums[y, x]
            area = (edges[row + 1] - edges[row]) * (edges[column + 1] - edges[column])
            found[row, column] = inside.mean() / area
    return found


def centre_and_corners(found):
    middle = PARTS // 2
    centre = found[middle - 1 : middle + 1, middle - 1 : middle + 1].mean()
    return centre, found[[0, 0, -1, -1], [0, -1, 0, -1]].mean()


def check_flat(one, label, mix, side, *, seed=0):
    sampling = SamplingConfig(mix=mix, patches_per_epoch=DRAWS)
    sides = np.full((1, 2), float(side))
    sampler = PatchSampler([one], sampling, sides=sides, seed=seed)
    found = mean_by_place(label, sampler.epoch(0), side)
    if found.mean() < 0.05:  # a mean over few pixels needs more draws for a precision of a tenth
        found = found + sum(
            mean_by_place(label, sampler.epoch(epoch), side) for epoch in range(1, 6)
        )
    centre, corners = centre_and_corners(found)
    assert centre == pytest.approx(corners, rel=0.1), (centre, corners)


@pytest.mark.parametrize(("object_px", "side"), SIZES)
@pytest.mark.parametrize(
    "mix",
    [
        {"objects": 1.0},
        {"tissue": 1.0},
        {"background": 1.0},
        {"boundary": 1.0},
        {"hard_negatives": 1.0},
        {"regions": {"cortex": 1.0}},
        {"objects": 0.5, "regions": {"cortex": 0.5}},
        {"objects": 0.5, "tissue": 0.4, "background": 0.1},
    ],
    ids=lambda mix: "+".join(mix),
)
def test_no_layer_has_a_position_bias(mix, object_px, side):
    one, label = painted(side=object_px, objects=4 if object_px > 250 else 12)
    check_flat(one, label, MixConfig(**mix), side)


@settings(max_examples=25)
@given(
    object_px=st.integers(20, 500),
    side=st.integers(40, 500),
    objects=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
@example(
    object_px=20, side=249, objects=23, seed=0
)  # clusters, for which a single iteration left a ratio of 1.11
@example(object_px=33, side=465, objects=13, seed=201)
def test_draws_around_objects_are_flat(object_px, side, objects, seed):
    one, label = painted(side=object_px, objects=objects, seed=seed)
    check_flat(one, label, MixConfig(objects=1.0), side, seed=seed)


def test_an_object_in_a_corner_of_the_slide_appears_all_over_the_patch():
    one, label = painted(objects=0)
    box = np.array([[0.0, 0.0, 90.0, 120.0]])
    label[:90, :120] = True
    alone = SlideMap("a", one.extent, 1.0, 16.0, one.tissue, box, np.ones(1, np.uint8),
                     np.array([90 * 120.0]), np.full(1, "expert"))  # fmt: skip
    check_flat(alone, label, MixConfig(objects=1.0), 256)


def test_a_slide_smaller_than_a_patch_is_shown_whole():
    one, _ = painted(height=200, width=900, side=40)
    sampling = SamplingConfig(mix=MixConfig(objects=0.5, tissue=0.5), patches_per_epoch=500)
    drawn = PatchSampler([one], sampling, sides=np.full((1, 2), 256.0), seed=0).epoch(0)
    assert (drawn.y == 100).all()
    assert drawn.x.std() > 100


def test_a_shifted_grid_has_no_position_bias():
    one, label = painted()
    grid = GridSampler([one], GridConfig(), sides=np.full((1, 2), 128.0), seed=0)
    found = sum(mean_by_place(label, grid.epoch(epoch), 128) for epoch in range(400))
    centre, corners = centre_and_corners(found)
    assert centre == pytest.approx(corners, rel=0.1)
