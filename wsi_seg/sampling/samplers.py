"""Owns the draw: which positions on which slides an epoch shows the model, in which order.

Draw ``i`` of an epoch depends on (seed, epoch, i) and the recipe alone. Workers and ranks only
share out the ``i``, so an epoch is the same on any number of them.
"""

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.errors import ConfigError
from wsi_seg.sampling.counters import BITS64, Stream, generator, uniforms
from wsi_seg.sampling.importance import BLOCK, CellTable, Share, SlideMap
from wsi_seg.sampling.objects import turns_of
from wsi_seg.sampling.positions import NUMBERS, ObjectPositions, lengths_of, shown_whole, widened

logger = logging.getLogger(__name__)

NO_OBJECT = -1

# A patch that the map hardly ever draws must not outweigh all others of its batch.
_LARGEST_WEIGHT = 10.0

# Steps of the counter that a draw around an object takes.
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


# Where no slide has the one, the other is drawn from.
_STANDS_IN = {Layer.TISSUE: Layer.BACKGROUND, Layer.BACKGROUND: Layer.TISSUE}


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Positions of patches, one array entry each.

    Parameters
    ----------
    slide
        Index into the sampler's maps, int32.
    y, x
        Centre in level-0 pixels, float64, inside the slide.
    layer
        `Layer` it was drawn from, uint8.
    object_id
        Object it is drawn for, counted through the maps one after the other, int64; -1 if none.
    weight
        Of the patch in the loss, float32.
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
    """Patches of an epoch that shows each object once when objects make up this share of it.

    ``objects + floor(objects * (1 - share) / share)``, as the positive-rate sampler of the
    SIIM-ACR 2019 winner counts.
    """
    if share <= 0:
        raise ConfigError(
            "sampling.patches_per_epoch is null and sampling.mix.objects is 0; expected a number "
            "of patches, or a share of objects above 0"
        )
    return objects + int(objects * (1 - share) / share + 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """One layer of cells, and its part of an epoch."""

    layer: Layer
    share: float
    table: CellTable


class PatchSampler:
    """Draws patch centres: around each object in turn, and uniformly over layers of cells.

    Object draws go through all objects in a fresh order before any comes again, so an epoch with
    at least as many object draws as objects has one for each. Patches may be anywhere that touches
    the object's box, or the layer's cells, so that their middle shows no more than their corners;
    see `wsi_seg.sampling.positions`. Centres are inside the slide, patches may stick out.

    Parameters
    ----------
    maps
        One per slide.
    sampling
        Section of the recipe. The share of tissue that no slide has falls to background, and the
        reverse; that of any other layer without cells to all others.
    sides
        Height and width of a patch in level-0 pixels of each slide, ``(maps, 2)``.
    seed
        Of the run.
    batch
        The number of patches is rounded up to whole batches of this many.

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
                f"no object is annotated on the {len(maps)} training slides, and "
                f"sampling.mix.objects is {mix.objects}; annotate some, or set it to 0"
            )
        self._cells = _require_cells(_layers(maps, mix, sides, self._positions), 1 - self._objects)
        wanted = sampling.patches_per_epoch or epoch_length(len(self._turns), self._objects)
        self.length = -(-wanted // batch) * batch
        shares = [self._objects, *(cells.share for cells in self._cells)]
        ends = np.rint(np.cumsum(shares) / sum(shares) * self.length).astype(np.int64)
        self._per_layer = np.diff(ends, prepend=0)

    def __len__(self) -> int:
        return self.length

    def epoch(self, epoch: int) -> Draws:
        """All draws of one epoch, in the order in which they are shown."""
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
        draws.y[:], draws.x[:] = shown_whole(centres, lengths, self._sides[draws.slide]).T
        if self._weighted:
            draws.weight[:] = self._weights(draws)
        return draws

    def _place_objects(
        self, draws: Draws, chosen: NDArray[np.bool_], *, turn: NDArray[np.int64], epoch: int
    ) -> None:
        """Place the chosen draws; ``turn`` numbers them from 0 without gaps, in any order."""
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
        """Put the chosen draws anywhere in cells drawn from the table."""
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
        """1 / (N p) of each draw: N cells in all, p the chance that its cell is drawn."""
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
        weights: NDArray[np.float64] = np.minimum(1 / (count * chance), _LARGEST_WEIGHT)
        return weights

    def _object_chance(self, draws: Draws) -> NDArray[np.float64]:
        """Chance that an object draw falls into the cell of each draw."""
        cell_px = np.array([m.cell_px for m in self.maps])[draws.slide]
        density = self._positions.density(draws.slide, draws.y, draws.x, self._turns.chances)
        chance: NDArray[np.float64] = density * cell_px**2
        return chance


def _layers(
    maps: Sequence[SlideMap], mix: MixConfig, sides: NDArray[np.float64], positions: ObjectPositions
) -> list[_Cells]:
    """Layers of cells that the mix asks for."""

    def layer(kind: Layer, share: float, found: Sequence[Share]) -> _Cells:
        cells = _widened(maps, found, sides)
        if kind is Layer.BACKGROUND:
            # It reaches into the tissue by half a patch, and would show objects at its rim alone.
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
        if not cells.table.total and kind in _STANDS_IN:
            other = _STANDS_IN[kind]
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
                f"{known}; check sampling.regions_label"
            )
        layers.append(cells)
    return layers


def _share_of(kind: Layer, slide: SlideMap) -> Share:
    """How much of each cell a layer is about."""
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
            return _or_none(slide, slide.hard_negatives)


def _cells(kind: Layer, share: float, maps: Sequence[SlideMap], weights: Sequence[Share]) -> _Cells:
    factors = [m.cell_px**2 * m.px_area for m in maps]
    return _Cells(kind, share, CellTable.of(list(zip(weights, factors, strict=True))))


def _widened(
    maps: Sequence[SlideMap], shares: Sequence[Share], sides: NDArray[np.float64]
) -> list[Share]:
    """Cells that patches of each layer may be centred in."""
    return [
        m.within(widened(share, m.cell_px, (side[0], side[1])))
        for m, share, side in zip(maps, shares, sides, strict=True)
    ]


def _or_none(slide: SlideMap, share: Share | None) -> Share:
    return np.zeros_like(slide.tissue) if share is None else share


def _region(slide: SlideMap, name: str, *, without_objects: bool) -> Share:
    """Share of each cell that a region covers, without objects that have draws of their own."""
    share = slide.regions.get(name)
    if share is None or not without_objects or slide.covered is None:
        return _or_none(slide, share)
    without: Share = share - np.minimum(share, slide.covered)
    return without


def _require_cells(layers: Sequence[_Cells], wanted: float) -> tuple[_Cells, ...]:
    """Layers with cells and a share; shares of empty layers go to others."""
    kept = [cells for cells in layers if cells.table.total]
    for cells in layers:
        if not cells.table.total and cells.layer not in _STANDS_IN.values():
            logger.warning("no slide has %s; its share goes to all others", cells.layer.name)
    if wanted > 1e-9 and not kept:
        raise ConfigError(
            "no layer of sampling.mix but objects has any cell on the training slides; expected "
            "tissue, background or another layer that they have"
        )
    total = sum(cells.share for cells in kept)
    return tuple(_Cells(c.layer, c.share / total * wanted, c.table) for c in kept)
