"""Owns the torch dataset of patches: drawn positions read as pixels and labels, and augmented."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from wsi_seg.classes import IGNORE
from wsi_seg.config.augment import Augment
from wsi_seg.data.augment import Augmenter
from wsi_seg.data.source import PatchSource
from wsi_seg.sampling import Draws, GridSampler, PatchSampler
from wsi_seg.sampling.counters import Stream, random_bits

Patch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class PatchDataset(Dataset[Patch]):
    """Patches of all epochs in order: item ``epoch * len(sampler) + i``.

    An item is ``(image, label, weight)``: the image uint8 ``(C, side, side)``, 0 to 255; the label
    uint8 class ids ``(side, side)``; the weight float32 ``(side, side)``, or ``()`` if all pixels
    have weight 1. Soft labels and overlapping classes are float32 probabilities
    ``(classes, side, side)``, NaN where ignored. An item depends only on its index and the recipe,
    so worker processes need no seeds. The dataset can be pickled.

    Parameters
    ----------
    sources
        One per map of the sampler, in the same order.
    sampler
        Draws the positions.
    augment
        See `Augmenter`.
    patch_px
        Side of a patch, in pixels.
    seed
        Seed of the run.
    """

    def __init__(
        self,
        sources: Sequence[PatchSource],
        sampler: PatchSampler | GridSampler,
        *,
        augment: Augment,
        patch_px: int,
        seed: int,
    ) -> None:
        self._sources = sources
        self._sampler = sampler
        self._augment = augment
        self._patch_px = patch_px
        self._seed = seed
        self._augmenter: Augmenter | None = None
        self._drawn: dict[int, Draws] = {}

    def __getitem__(self, item: int) -> Patch:
        epoch, index = divmod(item, len(self._sampler))
        draws = self._draws(epoch)
        source = self._sources[draws.slide[index]]
        if self._augmenter is None:
            self._augmenter = Augmenter(self._augment)
        side = self._augmenter.side_to_cut(self._patch_px)
        image, label = source.patch(float(draws.y[index]), float(draws.x[index]), side)
        raw = random_bits(self._seed, epoch, stream=Stream.AUGMENT, first=index, count=1)[0]
        seeds = [int(bits) >> 33 for bits in raw]
        image, label = self._augmenter(image, label, side=self._patch_px, seeds=seeds)
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        weight = torch.ones(())
        if source.doubt is not None:
            label, doubt = label[..., :-1], label[..., -1]
            weight = torch.from_numpy(1 - doubt.astype(np.float32) / 255)
        if source.soft is None and not source.planes:
            ids = label if label.ndim == 2 else label[..., 0]
            return planes, torch.from_numpy(np.ascontiguousarray(ids)), weight
        count = len(source.planes) or 1
        ids, soft = label[..., :count], label[..., count:] / np.float32(255)
        target = ids.astype(np.float32) if source.soft is None else soft
        target[np.broadcast_to(ids == IGNORE, target.shape)] = np.nan
        return planes, torch.from_numpy(np.ascontiguousarray(target.transpose(2, 0, 1))), weight

    def weight_of(self, item: int) -> float:
        """Return the weight in the loss of an item's draw."""
        epoch, index = divmod(item, len(self._sampler))
        return float(self._draws(epoch).weight[index])

    def slide_of(self, item: int) -> int:
        """Return the index of the source that an item is read from."""
        epoch, index = divmod(item, len(self._sampler))
        return int(self._draws(epoch).slide[index])

    def _draws(self, epoch: int) -> Draws:
        if epoch not in self._drawn:
            # Keep two epochs: patches of the previous one may be repeated.
            latest = dict(sorted(self._drawn.items())[-1:])
            self._drawn = latest | {epoch: self._sampler.epoch(epoch)}
        return self._drawn[epoch]


class EpochItems(Sampler[int]):
    """Item indices of one epoch, divided among ranks.

    Parameters
    ----------
    length
        Patches per epoch, over all ranks.
    rank, ranks
        Index of this process and number of processes; each gets every ``ranks``-th item.
    epoch, skip
        Epoch in which a run is resumed, and how many of this rank's items in it are already done.

    Attributes
    ----------
    rank, ranks
        As above; may be set until the first iteration.
    repeats
        Items of earlier epochs to repeat in the next epoch.
    """

    def __init__(
        self, length: int, *, rank: int = 0, ranks: int = 1, epoch: int = 0, skip: int = 0
    ) -> None:
        self._length = length
        self.repeats: tuple[int, ...] = ()
        self.rank, self.ranks = rank, ranks
        self._epoch = self._resumed = epoch
        self._skip = skip

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; the training loop calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(range(self.rank, self._length, self.ranks))

    def __iter__(self) -> Iterator[int]:
        items = self.of(self._epoch)[self.rank :: self.ranks].tolist()
        return iter(items[self._skip :] if self._epoch == self._resumed else items)

    def of(self, epoch: int) -> NDArray[np.int64]:
        """Return the items of an epoch over all ranks, ``(length,)`` int64.

        Repeats replace evenly spaced items.
        """
        items = np.arange(epoch * self._length, (epoch + 1) * self._length)
        replaced = np.arange(len(self.repeats)) * self._length // max(1, len(self.repeats))
        items[replaced] = self.repeats
        return items
