"""Owns patches as tensors: position to pixels and label, augmented, ready for a data loader."""

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
    """Patches of all epochs, one after the other: item ``epoch * len(sampler) + i``.

    An item is ``(image, label, weight)``: uint8 ``(C, side, side)``, uint8 class ids
    ``(side, side)``, and float32 ``(side, side)`` or, where all pixels weigh 1, ``()``. Soft truth,
    and that of overlapping classes, is float32 probabilities ``(classes, side, side)``, NaN where
    they are to be ignored. It depends on the item's number and the recipe alone, so worker
    processes need no seeds of their own. The object may be pickled.

    Parameters
    ----------
    sources
        One per map of the sampler, in its order.
    sampler
        Draws the positions.
    augment
        See `Augmenter`.
    patch_px
        Side of a patch.
    seed
        Of the run.
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
        """Weight of an item in the loss, as its draw has it."""
        epoch, index = divmod(item, len(self._sampler))
        return float(self._draws(epoch).weight[index])

    def slide_of(self, item: int) -> int:
        """Index of the source that an item is cut from."""
        epoch, index = divmod(item, len(self._sampler))
        return int(self._draws(epoch).slide[index])

    def _draws(self, epoch: int) -> Draws:
        if epoch not in self._drawn:
            # Two epochs: patches of the last one may come again.
            latest = dict(sorted(self._drawn.items())[-1:])
            self._drawn = latest | {epoch: self._sampler.epoch(epoch)}
        return self._drawn[epoch]


class EpochItems(Sampler[int]):
    """Numbers of the items of one epoch, shared out over ranks.

    Parameters
    ----------
    length
        Patches per epoch, over all ranks.
    rank, ranks
        This process and how many there are; each gets every ``ranks``-th item.
    epoch, skip
        Epoch that a run is resumed in, and how many of this rank's items it has had of it.

    Attributes
    ----------
    rank, ranks
        As above; may be set until the first iteration.
    repeats
        Items of earlier epochs to show once more in the next one that is iterated.
    """

    def __init__(
        self, length: int, *, rank: int = 0, ranks: int = 1, epoch: int = 0, skip: int = 0
    ) -> None:
        self._length = length
        self.repeats: tuple[int, ...] = ()
        self.rank, self.ranks = rank, ranks
        self._epoch = self._taken_up = epoch
        self._skip = skip

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; the training loop calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(range(self.rank, self._length, self.ranks))

    def __iter__(self) -> Iterator[int]:
        items = self.of(self._epoch)[self.rank :: self.ranks].tolist()
        return iter(items[self._skip :] if self._epoch == self._taken_up else items)

    def of(self, epoch: int) -> NDArray[np.int64]:
        """Items of an epoch, of all ranks, ``(length,)`` int64.

        Repeats replace some of them, evenly spread.
        """
        items = np.arange(epoch * self._length, (epoch + 1) * self._length)
        replaced = np.arange(len(self.repeats)) * self._length // max(1, len(self.repeats))
        items[replaced] = self.repeats
        return items
