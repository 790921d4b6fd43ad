"""Owns the check for position bias: predictions on tiles without structure.

On tiles of one colour, and on tiles of shuffled pieces, the prediction should be the same in the
middle as in the corners. Otherwise the network has learned where annotated structures are in its
patches, instead of what they look like.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from wsi_seg.errors import ConfigError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.models import load_checkpoint
from wsi_seg.models.activation import class_probabilities

POSITION_BIAS = "position_bias.json"

# Pieces along each side of a tile; must be even.
_PARTS = 8

# Largest difference between middle and corners without a warning; zero padding causes some.
_MAX_DIFFERENCE = 0.1

Means = list[list[float]]


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Mean predictions by position in a tile.

    Parameters
    ----------
    answers
        Mean probabilities ``(parts, parts)``, by kind of tile and class.
    """

    answers: Mapping[str, Mapping[str, Means]]

    @classmethod
    def read(cls, file: Path) -> "PositionBias":
        """Read a file written by `write`.

        Raises
        ------
        ConfigError
            If the file cannot be read.
        """
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read ({error}); train again") from error

    def write(self, file: Path) -> None:
        """Write the means as JSON, atomically.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        write_atomic(file, json.dumps(asdict(self)))

    def warnings(self) -> list[str]:
        """Return a warning for each class whose prediction depends on the position."""
        return [
            f"the network has learned the position: {kind} tiles are {name} with probability "
            f"{middle:.2f} in the middle and {corners:.2f} in the corners; check the mean label in "
            "`wsi-seg preview`, and train longer or on more varied slides"
            for kind, name, middle, corners in self._figures()
            if abs(middle - corners) > _MAX_DIFFERENCE
        ]

    def lines(self) -> list[str]:
        """Return the warnings, or without any the means of all classes, as lines of text."""
        return self.warnings() or [
            f"{kind} tiles are {name} with probability {middle:.2f} in the middle and "
            f"{corners:.2f} in the corners"
            for kind, name, middle, corners in self._figures()
        ]

    def _figures(self) -> Iterator[tuple[str, str, float, float]]:
        for kind, classes in self.answers.items():
            for name, means in classes.items():
                yield kind, name, *middle_and_corners(np.array(means))


def measure_position_bias(
    checkpoint: Path, patches: torch.Tensor, device: torch.device
) -> PositionBias:
    """Measure a network's predictions on tiles without structure, made from training patches.

    Parameters
    ----------
    checkpoint
        Checkpoint of the network.
    patches
        Training patches, ``(B, C, side, side)`` uint8.
    device
        Device on which to run the network.
    """
    network, card = load_checkpoint(checkpoint)
    network.to(device).eval()
    flat = patches.float().mean(dim=(2, 3), keepdim=True).expand_as(patches)
    answers = {}
    for kind, tiles in {"flat": flat, "shuffled": _shuffled(patches)}.items():
        sums = np.zeros((len(card.classes), *patches.shape[2:]))
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
        for tile in ((tiles / 255 - mean) / std).split(1):
            with torch.inference_mode():
                found = class_probabilities(
                    network(tile.to(device)).float(), exclusive=card.classes.is_exclusive
                )
                sums += found.sum(dim=0).cpu().numpy()
        means = [means_by_position(one / len(tiles)).tolist() for one in sums]
        answers[kind] = dict(zip(card.classes.names, means, strict=True))
    return PositionBias(answers)


def _shuffled(patches: torch.Tensor) -> torch.Tensor:
    """Shuffle the pieces of patches, and append the same tiles rolled by half a side.

    The middle and the corners then contain the same pieces. If the side is not a multiple of the
    pieces, it is padded by reflection.
    """
    count, channels, side, _ = patches.shape
    piece = side // _PARTS
    whole = piece * _PARTS
    patches = patches[:, :, :whole, :whole]
    order = torch.rand(
        (count, 1, _PARTS**2, 1), generator=torch.Generator().manual_seed(0)
    ).argsort(dim=2)
    cut = patches.unfold(2, piece, piece).unfold(3, piece, piece)
    cut = cut.reshape(count, channels, _PARTS**2, piece**2)
    mixed = cut.gather(2, order.expand_as(cut)).reshape(
        count, channels, _PARTS, _PARTS, piece, piece
    )
    tiles = mixed.permute(0, 1, 2, 4, 3, 5).reshape(count, channels, whole, whole)
    moved = tiles.roll((whole // 2, whole // 2), dims=(2, 3))
    both = torch.cat([tiles, moved]).float()
    return functional.pad(both, (0, side - whole) * 2, mode="reflect")


def means_by_position(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the parts of a square, ``(side, side)`` to ``(parts, parts)``."""
    edges = np.rint(np.linspace(0, len(values), _PARTS + 1)).astype(np.int64)
    sums = np.add.reduceat(np.add.reduceat(values, edges[:-1], axis=0), edges[:-1], axis=1)
    means: NDArray[np.float64] = sums / np.outer(np.diff(edges), np.diff(edges))
    return means


def middle_and_corners(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of the four middle parts, and of the four corner parts."""
    middle = len(means) // 2
    corners = means[[0, 0, -1, -1], [0, -1, 0, -1]]
    return float(means[middle - 1 : middle + 1, middle - 1 : middle + 1].mean()), float(
        corners.mean()
    )
