from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import ConfigError
from wsi_seg.geometry import axis_starts
from wsi_seg.infer.blend import MAX_OVERLAP, axis_weights
from wsi_seg.predict.predictor import PROBABILITY_STEPS

BLENDS = ["gaussian", "linear", "constant", "crop"]


def total(starts, tile, length, blend):
    sums = np.zeros(max(length, tile), dtype=np.int64)
    for start, weights in zip(
        starts, axis_weights(starts, tile, length=length, blend=blend), strict=True
    ):
        sums[start : start + tile] += weights
    return sums


@given(st.sampled_from(BLENDS), st.integers(1, 500), st.integers(1, 96), st.floats(0, MAX_OVERLAP))
def test_every_pixel_has_weight_and_no_sum_overflows_int32(blend, length, tile, overlap):
    stride = max(1, int(np.ceil(tile * (1 - overlap) - 1e-9)))
    sums = total(axis_starts(length, tile, stride), tile, length, blend)
    assert (sums > 0).all()
    half = PROBABILITY_STEPS // 255 // 2
    assert (PROBABILITY_STEPS + half) * int(sums.max()) ** 2 < 2**31


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_crop_gives_each_pixel_to_the_tile_whose_middle_is_nearest(length, tile, data):
    starts = axis_starts(length, tile, data.draw(st.integers(1, tile)))
    weights = axis_weights(starts, tile, length=length, blend="crop")
    assert (total(starts, tile, length, "crop") == 1).all()
    middles = np.asarray(starts) + (tile - 1) / 2
    for px in range(max(length, tile)):
        owner = next(i for i, s in enumerate(starts) if s <= px < s + tile and weights[i, px - s])
        assert abs(middles[owner] - px) == np.abs(middles - px).min()


def test_gaussian_is_the_fields_convention():
    (weights,) = axis_weights((0,), 512, length=512, blend="gaussian")
    expected = np.exp(-0.5 * ((np.arange(512) - 255.5) / 64) ** 2)
    assert np.abs(weights / 120 - expected).max() < 1 / 120
    assert weights.min() == 1
    # Two such factors meet in a corner: 1.2e-7 without the floor, which a sum would lose.
    assert expected[0] ** 2 == pytest.approx(1.2e-7, rel=0.01)
    assert (weights[0] / 120) ** 2 == pytest.approx(6.9e-5, rel=0.01)


def test_unknown_blend_is_refused():
    with pytest.raises(ConfigError, match="cubic"):
        axis_weights((0,), 8, length=8, blend=cast("Any", "cubic"))
