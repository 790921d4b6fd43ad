"""Owns what a patch weighs in the loss: less where its truth was guessed by a network."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from wsi_seg.data.dataset import PatchDataset

Patch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class WeightedPatches(Dataset[Patch]):
    """Patches with the weight of their slide, a float32 scalar, as the third part.

    Parameters
    ----------
    patches
        Image and label.
    weights
        Of each source of the patches.
    """

    def __init__(self, patches: PatchDataset, weights: Sequence[float]) -> None:
        self._patches = patches
        self._weights = tuple(weights)

    def __getitem__(self, item: int) -> Patch:
        image, label = self._patches[item]
        weight = torch.tensor(self._weights[self._patches.slide_of(item)], dtype=torch.float32)
        return image, label, weight
