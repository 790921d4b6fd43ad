"""Owns the truth of patches as the loss takes it: soft or hard, and what each patch weighs."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from wsi_seg.data.dataset import PatchDataset
from wsi_seg.data.mix import probabilities

Patch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class WeightedPatches(Dataset[Patch]):
    """Patches with their weight, that of slide times draw, a float32 scalar, as the third part.

    Parameters
    ----------
    patches
        Image and label.
    weights
        Of each source of the patches: less where its truth was guessed by a network.
    classes
        Number of classes if some truth is soft, which makes all labels of a batch probabilities;
        None leaves class ids as they are.
    """

    def __init__(
        self, patches: PatchDataset, weights: Sequence[float], *, classes: int | None
    ) -> None:
        self._patches = patches
        self._weights = tuple(weights)
        self._classes = classes

    def __getitem__(self, item: int) -> Patch:
        image, label = self._patches[item]
        if self._classes is not None and not label.is_floating_point():
            label = probabilities(label, self._classes)
        weight = self._weights[self._patches.slide_of(item)] * self._patches.weight_of(item)
        return image, label, torch.tensor(weight, dtype=torch.float32)
