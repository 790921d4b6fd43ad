"""The check after training: does the prediction depend on the position in a tile?"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsi_seg.learn import position_bias
from wsi_seg.learn.position_bias import (
    PositionBias,
    means_by_position,
    measure_position_bias,
    middle_and_corners,
)


class Knows(nn.Module):
    """Network that returns fixed logits by position."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, tiles):
        return self.logits.expand(len(tiles), 1, *tiles.shape[2:])


@pytest.fixture
def answers(monkeypatch, recipe_for, card_of):
    """Return a function that checks a network with these fixed logits."""

    def check(logits):
        card = card_of(recipe_for())
        monkeypatch.setattr(position_bias, "load_checkpoint", lambda _: (Knows(logits), card))
        patches = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
        return measure_position_bias(Path("best.safetensors"), patches, torch.device("cpu"))

    return check


def test_a_network_with_position_bias_is_reported(answers, tmp_path):
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    found = answers(torch.tensor(1 - 3 * np.hypot(y, x)).float())
    assert len(found.warnings()) == 2
    assert "flat tiles are disc with probability 0.6" in found.warnings()[0]
    found.write(tmp_path / "position_bias.json")
    assert PositionBias.read(tmp_path / "position_bias.json") == found


def test_a_network_without_position_bias_is_not(answers):
    found = answers(torch.full((64, 64), -0.5))
    assert found.warnings() == []
    assert "0.38 in the middle and 0.38 in the corners" in found.lines()[0]


def test_middle_and_corners_of_shuffled_tiles_have_the_same_pieces():
    patches = torch.arange(2 * 3 * 64 * 64).reshape(2, 3, 64, 64).remainder(251).to(torch.uint8)
    tiles = position_bias._shuffled(patches)
    assert tiles.shape == (4, 3, 64, 64)
    assert torch.equal(tiles[0].flatten().sort().values, patches[0].float().flatten().sort().values)
    assert not torch.equal(tiles[0], patches[0].float())
    assert torch.equal(tiles[0, :, 24:40, 24:40], tiles[2].roll((32, 32), (1, 2))[:, 24:40, 24:40])
    means = means_by_position(tiles.mean(dim=(0, 1)).double().numpy())
    middle, corners = middle_and_corners(means)
    assert middle == pytest.approx(corners)


@pytest.mark.parametrize("side", [8, 15, 100])
def test_patches_of_any_side_are_shuffled(side):
    patches = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    tiles = position_bias._shuffled(patches)
    whole = side // 8 * 8
    assert tiles.shape == (4, 3, side, side)
    kept = tiles[0, :, :whole, :whole].flatten().sort().values
    assert torch.equal(kept, patches[0, :, :whole, :whole].float().flatten().sort().values)
