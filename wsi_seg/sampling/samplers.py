"""Owns drawing the patches of an epoch: slides, positions and order.

Draw ``i`` of an epoch depends only on (seed, epoch, i) and the recipe. Workers and ranks divide the
indices ``i`` among them, so an epoch is the same for any number of workers and ranks.
"""

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.sampling.counters import BITS64, Stream, generator, uniforms
from wsi_seg.sampling.importance import BLOCK, CellTable, Share, SlideMap
from wsi_seg.sampling.objects import turns_of
from wsi_seg.sampling.positions import (
    NUMBERS,
    ObjectPositions,
    centre_small_slides,
    dilate,
    lengths_of,
)

logger = logging.getLogger(__name__)

NO_OBJECT = -1

# So that a patch with a tiny probability does not dominate its batch.
_MAX_WEIGHT = 10.0

# Counter increments per draw around an object.
_STEPS = -(-NUMBERS // BITS64)

_FULL = 255


class Layer(enum.IntEnum):
    """Layers of the importance map."""

    OBJECTS = 0
    TISSUE = 1
    BACKGROUND = 2
    BOUNDARY = 3
    HARD_NEGATIVES = 4
    REGIONS = 5
    EMPTY = 6


# Layers that replace each other if no slide has the one.
_FALLBACK = {Layer.TISSUE: Layer.BACKGROUND, Layer.BACKGROUND: Layer.TISSUE}


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Positions of patches, in arrays of shape ``(n,)``.

    Parameters
    ----------
    slide
        Index into the sampler's maps, int32.
    y, x
        Centre in level-0 pixels, float64, inside the slide.
    layer
        `Layer` from which it was drawn, uint8.
    object_id
        Object around which it was drawn, numbered through all maps, int64; -1 for other layers.
    weight
        Weight of the patch in the loss, float32.
    """

    slide: NDArray[np.int32]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    layer: NDArray[np.uint8]
    object_id: NDArray[np.int64]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.slide)


def epoch_length(objects: int, share: float) -> int:
    """Return the length of an epoch with one patch per object, if objects are this share of it.

    ``objects + floor(objects * (1 - share) / share)``, as for the SIIM-ACR 2019 winner.

    Raises
    ------
    ConfigError
        If the share is 0.
    """
    if share <= 0:
        raise ConfigError(
            "sampling.patches_per_epoch is null and sampling.mix.objects is 0; set "
            "patches_per_epoch, or mix.objects above 0"
        )
    return objects + int(objects * (1 - share) / share + 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """One layer of cells, and its share of an epoch."""

    layer: Layer
    share: float
    table: CellTable


class PatchSampler:
    """Draws patch centres: around each object in turn, and uniformly over layers of cells.

    Object draws go through all objects in a new random order before repeating any, so an epoch with
    at least as many object draws as objects has one for each. A patch may be anywhere that it
    overlaps the object's bounding box, or the layer's cells, so that targets are not concentrated
    in its middle; see `wsi_seg.sampling.positions`. Centres are inside the slide; patches may
    extend past it.

    Parameters
    ----------
    maps
        One per slide.
    sampling
        Sampling section of the recipe. If no slide has tissue, its share goes to background, and
        vice versa; the share of any other layer without cells goes to all others.
    sides
        Height and width of a patch in level-0 pixels of each slide, ``(maps, 2)`` float64.
    seed
        Seed of the run.
    batch
        The number of patches is rounded up to whole batches of this size.

    Raises
    ------
    ConfigError
        If there is nothing to draw from.
    """

    def __init__(
        self,
        maps: Sequence[SlideMap],
        sampling: SamplingConfig,
        *,
        sides: NDArray[np.float64],
        seed: int,
        batch: int = 1,
    ) -> None:
        if not maps:
            raise ConfigError("got no slides to draw patches from; expected at least one")
        self.maps = tuple(maps)
        self._seed, self._weighted = seed, sampling.weighted
        self._sides, self._lengths = sides, lengths_of(maps)
        self._positions = ObjectPositions(maps, sides)
        self._turns = turns_of(maps, sampling, sides.prod(axis=1))
        blocks = [-(-m.tissue.size // BLOCK) for m in maps]
        self._first_cell = np.cumsum([0, *blocks]) * BLOCK
        mix = sampling.mix
        self._objects = mix.objects / mix.total
        if mix.objects > 0 and not len(self._turns):
            raise ConfigError(
                f"no object is annotated on {counted(len(maps), 'training slide')}, but "
                f"sampling.mix.objects is {mix.objects}; annotate objects, or set it to 0"
            )
        self._cells = _require_cells(_layers(maps, mix, sides, self._positions), 1 - self._objects)
        patches = sampling.patches_per_epoch or epoch_length(len(self._turns), self._objects)
        self.length = -(-patches // batch) * batch
        shares = [self._objects, *(cells.share for cells in self._cells)]
        ends = np.rint(np.cumsum(shares) / sum(shares) * self.length).astype(np.int64)
        self._per_layer = np.diff(ends, prepend=0)

    def __len__(self) -> int:
        return self.length

    def epoch(self, epoch: int) -> Draws:
        """Return all draws of one epoch, in training order."""
        n = self.length
        kind = np.repeat(np.arange(len(self._per_layer)), self._per_layer)
        slot = generator(self._seed, epoch, stream=Stream.LAYERS).permutation(n)
        kind = kind[slot]
        uniform = uniforms(self._seed, epoch, stream=Stream.POSITIONS, first=0, count=n)
        layers = np.array([Layer.OBJECTS, *(cells.layer for cells in self._cells)], dtype=np.uint8)
        draws = Draws(
            slide=np.zeros(n, dtype=np.int32),
            y=np.zeros(n),
            x=np.zeros(n),
            layer=layers[kind],
            object_id=np.full(n, NO_OBJECT, dtype=np.int64),
            weight=np.ones(n, dtype=np.float32),
        )
        chosen = kind == 0
        self._place_objects(draws, chosen, turn=slot[chosen], epoch=epoch)
        for number, cells in enumerate(self._cells, 1):
            self._place_cells(draws, kind == number, uniform, cells.table)
        centres = np.stack([draws.y, draws.x], axis=1)
        lengths = self._lengths[draws.slide]
        draws.y[:], draws.x[:] = centre_small_slides(centres, lengths, self._sides[draws.slide]).T
        if self._weighted:
            draws.weight[:] = self._weights(draws)
        return draws

    def _place_objects(
        self, draws: Draws, chosen: NDArray[np.bool_], *, turn: NDArray[np.int64], epoch: int
    ) -> None:
        """Place the chosen draws around objects; ``turn`` is a permutation of their indices."""
        if not len(turn):
            return
        picked = self._turns.draw(len(turn), seed=self._seed, epoch=epoch)[turn]
        count = len(draws) * _STEPS
        raw = uniforms(self._seed, epoch, stream=Stream.AROUND_OBJECTS, first=0, count=count)
        numbers = raw.reshape(len(draws), -1)[chosen, :NUMBERS]
        draws.object_id[chosen] = picked
        draws.slide[chosen] = self._positions.slide[picked]
        draws.y[chosen], draws.x[chosen] = self._positions.draw(picked, numbers).T

    def _place_cells(
        self,
        draws: Draws,
        chosen: NDArray[np.bool_],
        uniform: NDArray[np.float64],
        table: CellTable,
    ) -> None:
        """Place the chosen draws uniformly in cells drawn from the table."""
        if not chosen.any():
            return
        cell = table.draw(uniform[chosen, 0])
        slide = np.searchsorted(self._first_cell, cell, side="right") - 1
        columns = np.array([m.tissue.shape[1] for m in self.maps])[slide]
        cell_px = np.array([m.cell_px for m in self.maps])[slide]
        heights = np.array([m.extent.height for m in self.maps])[slide]
        widths = np.array([m.extent.width for m in self.maps])[slide]
        row, column = np.divmod(cell - self._first_cell[slide], columns)
        draws.slide[chosen] = slide
        for centres, cell_index, length, share in (
            (draws.y, row, heights, uniform[chosen, 1]),
            (draws.x, column, widths, uniform[chosen, 2]),
        ):
            start = cell_index * cell_px
            centres[chosen] = start + share * (np.minimum(start + cell_px, length) - start)

    def _weights(self, draws: Draws) -> NDArray[np.float64]:
        """Return 1 / (N p) of each draw: N cells in total, p the probability of its cell."""
        slide = draws.slide
        cell_px = np.array([m.cell_px for m in self.maps])[slide]
        columns = np.array([m.tissue.shape[1] for m in self.maps])[slide]
        row, column = (draws.y // cell_px).astype(int), (draws.x // cell_px).astype(int)
        cell = self._first_cell[slide] + row * columns + column
        chance = np.zeros(len(draws))
        for cells in self._cells:
            chance += cells.share * cells.table.share(cell)
        if self._objects:
            chance += self._objects * self._object_chance(draws)
        count = sum(m.tissue.size for m in self.maps)
        weights: NDArray[np.float64] = np.minimum(1 / (count * chance), _MAX_WEIGHT)
        return weights

    def _object_chance(self, draws: Draws) -> NDArray[np.float64]:
        """Return the probability that an object draw falls into the cell of each draw."""
        cell_px = np.array([m.cell_px for m in self.maps])[draws.slide]
        density = self._positions.density(draws.slide, draws.y, draws.x, self._turns.chances)
        chance: NDArray[np.float64] = density * cell_px**2
        return chance


def _layers(
    maps: Sequence[SlideMap], mix: MixConfig, sides: NDArray[np.float64], positions: ObjectPositions
) -> list[_Cells]:
    """Build the layers of cells with a share in the mix."""

    def layer(kind: Layer, share: float, found: Sequence[Share]) -> _Cells:
        cells = _dilated(maps, found, sides)
        if kind is Layer.BACKGROUND:
            # Dilated into the tissue by half a patch, it would show objects at the rim of patches.
            cells = [share * positions.free(number) for number, share in enumerate(cells)]
        return _cells(kind, share / mix.total, maps, cells)

    shares = {
        Layer.TISSUE: mix.tissue,
        Layer.BACKGROUND: mix.background,
        Layer.EMPTY: mix.empty,
        Layer.BOUNDARY: mix.boundary,
        Layer.HARD_NEGATIVES: mix.hard_negatives,
    }
    layers = []
    for kind, share in shares.items():
        if share <= 0:
            continue
        cells = layer(kind, share, [_share_of(kind, m) for m in maps])
        if not cells.table.total and kind in _FALLBACK:
            other = _FALLBACK[kind]
            logger.info("no slide has %s; its share goes to %s", kind.name, other.name)
            cells = layer(other, share, [_share_of(other, m) for m in maps])
        layers.append(cells)
    for name, share in mix.regions.items():
        regions = [_region(m, name, without_objects=mix.objects > 0) for m in maps]
        cells = layer(Layer.REGIONS, share, regions)
        if share > 0 and not cells.table.total:
            known = ", ".join(sorted({known for m in maps for known in m.regions})) or "none"
            raise ConfigError(
                f"sampling.mix.regions names {name!r}, which no training slide has; they have "
                f"{known}; check the names, and sampling.regions_label"
            )
        layers.append(cells)
    return layers


def _share_of(kind: Layer, slide: SlideMap) -> Share:
    """Return the fraction of each cell that belongs to a layer."""
    match kind:
        case Layer.TISSUE:
            return slide.tissue
        case Layer.BACKGROUND:
            return _FULL - slide.tissue
        case Layer.EMPTY:
            return np.full_like(slide.tissue, 0 if len(slide.boxes) else _FULL)
        case Layer.BOUNDARY:
            return slide.boundary
        case _:
            return _or_zeros(slide, slide.hard_negatives)


def _cells(kind: Layer, share: float, maps: Sequence[SlideMap], weights: Sequence[Share]) -> _Cells:
    factors = [m.cell_px**2 * m.px_area for m in maps]
    return _Cells(kind, share, CellTable.of(list(zip(weights, factors, strict=True))))


def _dilated(
    maps: Sequence[SlideMap], shares: Sequence[Share], sides: NDArray[np.float64]
) -> list[Share]:
    """Return the cells of each map in which patches of a layer may be centred."""
    return [
        m.within(dilate(share, m.cell_px, (side[0], side[1])))
        for m, share, side in zip(maps, shares, sides, strict=True)
    ]


def _or_zeros(slide: SlideMap, share: Share | None) -> Share:
    return np.zeros_like(slide.tissue) if share is None else share


def _region(slide: SlideMap, name: str, *, without_objects: bool) -> Share:
    """Return the fraction of each cell that a region covers, optionally without objects."""
    share = slide.regions.get(name)
    if share is None or not without_objects or slide.covered is None:
        return _or_zeros(slide, share)
    without: Share = share - np.minimum(share, slide.covered)
    return without


def _require_cells(layers: Sequence[_Cells], total_share: float) -> tuple[_Cells, ...]:
    """Drop empty layers, and scale the shares of the others to ``total_share``."""
    kept = [cells for cells in layers if cells.table.total]
    for cells in layers:
        if not cells.table.total and cells.layer not in _FALLBACK.values():
            logger.warning("no slide has %s; its share goes to all others", cells.layer.name)
    if total_share > 1e-9 and not kept:
        raise ConfigError(
            "no layer of sampling.mix other than objects has cells on the training slides; use "
            "tissue, background or another layer that they have"
        )
    total = sum(cells.share for cells in kept)
    return tuple(_Cells(c.layer, c.share / total * total_share, c.table) for c in kept)
