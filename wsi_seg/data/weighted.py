"""Owns the labels and weights of patches in the form that the loss expects."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from wsi_seg.data.dataset import Patch, PatchDataset
from wsi_seg.data.mix import probabilities


class WeightedPatchDataset(Dataset[Patch]):
    """Patches whose weight is the product of the weights of slide, draw and pixel, float32.

    Parameters
    ----------
    patches
        Images, labels and weights of pixels.
    weights
        Weight of each source of the patches: lower for pseudo-labels.
    classes
        Number of classes if some labels are soft, which makes all labels probabilities; None
        leaves class ids as they are.
    by_px
        Whether pixels have different weights, which gives each patch a weight per pixel.
    """

    def __init__(
        self, patches: PatchDataset, weights: Sequence[float], *, classes: int | None, by_px: bool
    ) -> None:
        self._patches = patches
        self._weights = tuple(weights)
        self._classes = classes
        self._by_px = by_px

    def __getitem__(self, item: int) -> Patch:
        image, label, weight = self._patches[item]
        if self._classes is not None and not label.is_floating_point():
            label = probabilities(label, self._classes)
        if self._by_px:
            weight = weight.expand(image.shape[1:])
        whole = self._weights[self._patches.slide_of(item)] * self._patches.weight_of(item)
        return image, label, weight * whole
