"""Views of tiles are inverted exactly."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import ConfigError
from wsi_seg.predict.tta import predict_views

TTAS = ["none", "hflip", "flips", "d4"]


def red(tiles):
    return tiles[..., 0].to(torch.int32)[:, None]


def by_position(tiles):
    """Model that depends only on the position of a pixel."""
    _, height, width, _ = tiles.shape
    y, x = np.mgrid[:height, :width]
    values = torch.from_numpy((y * 100 + x).astype(np.int32))
    return values.expand(len(tiles), 1, height, width)


def blank(height, width):
    return torch.zeros(1, height, width, 3, dtype=torch.uint8)


@given(st.sampled_from(TTAS), st.integers(1, 9), st.integers(1, 9))
def test_every_view_is_inverted_exactly_for_any_shape(tta, height, width):
    tiles = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    )
    torch.testing.assert_close(predict_views(red, tiles, tta), red(tiles))


def test_d4_of_a_position_only_model_is_its_average_over_the_group():
    found = predict_views(by_position, blank(6, 6), "d4")[0, 0].numpy()
    base = by_position(blank(6, 6))[0, 0].numpy()
    group = [np.rot90(m, k) for m in (base, base[:, ::-1]) for k in range(4)]
    np.testing.assert_array_equal(found, (np.sum(group, axis=0) + 4) // 8)


def test_flips_are_two_mirrors_and_a_rotation_by_180_degrees():
    base = by_position(blank(4, 5))[0, 0].numpy()
    found = predict_views(by_position, blank(4, 5), "flips")[0, 0]
    views = [base, base[:, ::-1], base[::-1], base[::-1, ::-1]]
    np.testing.assert_array_equal(found.numpy(), (np.sum(views, axis=0) + 2) // 4)


@pytest.mark.parametrize("tta", TTAS)
def test_a_predictor_may_overwrite_its_previous_result(tta):
    tiles = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    buffer = torch.empty(2, 1, 4, 4, dtype=torch.int32)

    def squared(tiles):
        return buffer.copy_(red(tiles) ** 2)

    expected = red(tiles) ** 2
    torch.testing.assert_close(predict_views(squared, tiles, tta), expected)


def test_every_view_reaches_the_network_contiguous_because_a_compiled_one_has_one_layout():
    def checked(tiles):
        assert tiles.is_contiguous()
        return red(tiles)

    predict_views(checked, torch.zeros(4, 5, 5, 6, dtype=torch.uint8)[::2, ..., :3], "d4")


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="spin"):
        predict_views(red, blank(2, 2), cast("Any", "spin"))
