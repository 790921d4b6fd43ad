"""Owns the truth of patches as the loss takes it: soft or hard, and what each patch weighs."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from wsi_seg.data.dataset import Patch, PatchDataset
from wsi_seg.data.mix import probabilities


class WeightedPatchDataset(Dataset[Patch]):
    """Patches with their weight as the third part: that of slide times draw times pixel, float32.

    Parameters
    ----------
    patches
        Image and label.
    weights
        Of each source of the patches: less where its truth was guessed by a network.
    classes
        Number of classes if some truth is soft, which makes all labels of a batch probabilities;
        None leaves class ids as they are.
    by_px
        Whether some pixels weigh less than others, which gives each patch a weight for each pixel.
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
