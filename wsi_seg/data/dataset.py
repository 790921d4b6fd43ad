"""Owns patches as tensors: position to pixels and label, augmented, ready for a data loader."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from wsi_seg.classes import DOUBT, IGNORE, ClassTable
from wsi_seg.config.augment import Augment
from wsi_seg.data.augment import Augmenter
from wsi_seg.errors import StoreError
from wsi_seg.reading.readable import Readable
from wsi_seg.reading.resample import Scale, read_image, read_label
from wsi_seg.reading.view import View
from wsi_seg.sampling import Draws, GridSampler, PatchSampler
from wsi_seg.sampling.counters import Stream, random_bits
from wsi_seg.store import Multiscale, SlideStore, open_multiscale

# Group inside a label's that holds its probabilities.
SOFT = "soft"

Patch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class PatchSource:
    """One slide and its truth, as patches are cut from it.

    Parameters
    ----------
    image, label
        Pixels and class ids.
    scale
        Resolution of the patches.
    recode
        ``(256,)`` uint8: the label's class ids to the model's; other classes are background.
    soft
        Probabilities (value / 255) to learn instead of ids, one channel per class of the model;
        None where the truth is certain.
    doubt
        How much less than 1 each pixel weighs, value / 255; None where all weigh 1.
    """

    image: Readable
    label: Multiscale
    scale: Scale
    recode: NDArray[np.uint8]
    soft: Multiscale | None = None
    doubt: Multiscale | None = None

    @classmethod
    def of(cls, store: SlideStore, label: str, *, classes: ClassTable, view: View) -> "PatchSource":
        """Source of a slide, as the model looks at it.

        Raises
        ------
        StoreError
            If the slide has no such label, the label lacks one of the classes, or the slide lacks
            the neighbours to see.
        ResolutionError
            If the slide cannot be read at this mpp.
        """
        truth = store.label(label)
        return cls(
            image=view.image(store),
            label=truth,
            scale=view.scale(store.pyramid, name=store.name),
            recode=_recode(store.name, truth, classes),
            soft=_soft(truth, classes),
            doubt=_inside(truth, DOUBT),
        )

    def patch(
        self, centre_y: float, centre_x: float, side: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Square patch around a centre given in level-0 pixels.

        Past the slide's border image and label are mirrored, about the middle of the last pixel.

        Returns
        -------
        image : NDArray[np.uint8]
            ``(side, side, C)``.
        label : NDArray[np.uint8]
            ``(side, side)`` class ids of the model; where truth is soft or weighs less than 1
            ``(side, side, planes)``: ids, probabilities of the classes, doubt.
        """
        window = self._window(centre_y, centre_x, side)
        image = read_image(
            self.image,
            self.scale,
            window.y,
            window.x,
            height=window.height,
            width=window.width,
        )
        return window.shown(image), self._truth(window)

    def truth(self, centre_y: float, centre_x: float, side: int) -> NDArray[np.uint8]:
        """Label of a patch alone, see `patch`."""
        return self._truth(self._window(centre_y, centre_x, side))

    def _window(self, centre_y: float, centre_x: float, side: int) -> "_Window":
        level0, extent = self.image.pyramid.extent, self.scale.extent
        return _Window(
            _mirrored(centre_y * extent.height / level0.height, side, extent.height),
            _mirrored(centre_x * extent.width / level0.width, side, extent.width),
        )

    def _truth(self, window: "_Window") -> NDArray[np.uint8]:
        ids = self.recode.take(self._read(self.label, window))
        more = [m for m in (self.soft, self.doubt) if m is not None]
        if more:
            planes = [self._read(one, window) for one in more]
            planes = [plane.reshape(*ids.shape, -1) for plane in planes]
            ids = np.concatenate([ids[..., None], *planes], axis=-1)
        return window.shown(ids)

    def _read(self, label: Multiscale, window: "_Window") -> NDArray[np.uint8]:
        return read_label(
            label,
            self.scale.extent,
            window.y,
            window.x,
            height=window.height,
            width=window.width,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Rows and columns that a patch shows, in its order, each ``(side,)``."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @property
    def y(self) -> int:
        return int(self.rows.min())

    @property
    def x(self) -> int:
        return int(self.columns.min())

    @property
    def height(self) -> int:
        return int(self.rows.max()) - self.y + 1

    @property
    def width(self) -> int:
        return int(self.columns.max()) - self.x + 1

    def shown(self, block: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Patch of the block of pixels from the first row and column to the last."""
        ascending = (np.diff(self.rows) == 1).all() and (np.diff(self.columns) == 1).all()
        if ascending:
            return block
        return block[np.ix_(self.rows - self.y, self.columns - self.x)]


def _mirrored(centre: float, side: int, length: int) -> NDArray[np.int64]:
    """Pixels of an axis that a patch shows, in its order; past the ends they come back."""
    past = np.abs(round(centre - side / 2) + np.arange(side))
    turn = max(1, 2 * (length - 1))
    found: NDArray[np.int64] = np.abs((past + length - 1) % turn - (length - 1))
    return found


def _recode(slide: str, label: Multiscale, classes: ClassTable) -> NDArray[np.uint8]:
    known = label.classes
    missing = classes.absent_from(known)
    if missing:
        raise StoreError(
            f"slide {slide!r}: label {label.name!r} has classes {', '.join(known.names)}; "
            f"expected {', '.join(missing)} too; check classes of the recipe"
        )
    return classes.recoding(known)


def _soft(label: Multiscale, classes: ClassTable) -> Multiscale | None:
    """Probabilities inside a label, if it has any."""
    soft = _inside(label, SOFT)
    if soft is None:
        return None
    names = soft.classes.names if soft.names_classes else ()
    if names != classes.names:
        raise StoreError(
            f"{soft.path} has probabilities of {', '.join(names) or 'no class'}; expected "
            f"{', '.join(classes.names)}; run `wsi-seg pseudo` again"
        )
    return soft


def _inside(label: Multiscale, name: str) -> Multiscale | None:
    """Map inside a label, if it has one."""
    folder = label.path / name
    return open_multiscale(folder) if (folder / "zarr.json").is_file() else None


class PatchDataset(Dataset[Patch]):
    """Patches of all epochs, one after the other: item ``epoch * len(sampler) + i``.

    An item is ``(image, label, weight)``: uint8 ``(C, side, side)``, uint8 class ids
    ``(side, side)``, and float32 ``(side, side)`` or, where all pixels weigh 1, ``()``. Soft truth
    is float32 probabilities ``(classes, side, side)``, NaN where they are to be ignored. It depends
    on the item's number and the recipe alone, so worker processes need no seeds of their own. The
    object may be pickled.

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
        self._sources = tuple(sources)
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
        if source.soft is None:
            ids = label if label.ndim == 2 else label[..., 0]
            return planes, torch.from_numpy(np.ascontiguousarray(ids)), weight
        soft = label[..., 1:].transpose(2, 0, 1).astype(np.float32) / 255
        soft[:, label[..., 0] == IGNORE] = np.nan
        return planes, torch.from_numpy(soft), weight

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
