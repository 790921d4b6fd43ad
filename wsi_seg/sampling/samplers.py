"""Owns the draw: which places of which slides an epoch shows to the model, in which order.

Draw ``i`` of an epoch depends on (seed, epoch, i) and the recipe alone. Workers and ranks only
share out the ``i``, so an epoch is the same on any number of them.
"""

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import MixConfig
from wsi_seg.errors import ConfigError
from wsi_seg.sampling.counters import Stream, generator, uniforms
from wsi_seg.sampling.importance import CellTable, SlideMap

logger = logging.getLogger(__name__)

NO_OBJECT = -1


class Layer(enum.IntEnum):
    """Layers of the importance map."""

    OBJECTS = 0
    TISSUE = 1
    BACKGROUND = 2


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Places of patches, one array entry each.

    Parameters
    ----------
    slide
        Index into the sampler's maps, int32.
    y, x
        Centre in level-0 px, float64, inside the slide.
    layer
        `Layer` it was drawn from, uint8.
    object_id
        Object it is centred on, counted through the maps one after the other, int64; -1 if none.
    """

    slide: NDArray[np.int32]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    layer: NDArray[np.uint8]
    object_id: NDArray[np.int64]

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


class PatchSampler:
    """Draws patch centres: around each object in turn, uniformly over tissue, and beside it.

    Object draws go through all objects in a fresh order before any comes again, so an epoch with
    at least as many object draws as objects shows each at least once. The centre is uniform in
    the object's box. Tissue and background are uniform by area over all slides.

    Parameters
    ----------
    maps
        One per slide.
    mix
        Share of the layers. The share of a layer that no slide has falls to the other of tissue
        and background.
    patches_per_epoch
        Null: see `epoch_length`.
    batch
        The number is rounded up to whole batches of this many.
    seed
        Of the run.

    Raises
    ------
    ConfigError
        If there is nothing to draw from.
    """

    def __init__(
        self,
        maps: Sequence[SlideMap],
        mix: MixConfig,
        *,
        patches_per_epoch: int | None,
        seed: int,
        batch: int = 1,
    ) -> None:
        if not maps:
            raise ConfigError("got no slides to draw patches from; expected at least one")
        self.maps = tuple(maps)
        self._seed = seed
        self._boxes = np.concatenate([m.boxes for m in maps])
        self._box_slide = np.repeat(np.arange(len(maps)), [len(m.boxes) for m in maps])
        self._first_cell = np.cumsum([0, *(m.tissue.size for m in maps)])
        self._tables = _cell_tables(maps)
        shares = self._shares(mix)
        wanted = patches_per_epoch or epoch_length(len(self._boxes), mix.objects)
        self.length = -(-wanted // batch) * batch
        ends = np.rint(np.cumsum(shares) * self.length).astype(np.int64)
        self._per_layer = np.diff(ends, prepend=0)

    def __len__(self) -> int:
        return self.length

    def epoch(self, epoch: int) -> Draws:
        """All draws of one epoch, in the order in which they are shown."""
        n = self.length
        layer = np.repeat(np.arange(len(Layer), dtype=np.uint8), self._per_layer)
        slot = generator(self._seed, epoch, stream=Stream.LAYERS).permutation(n)
        layer = layer[slot]
        uniform = uniforms(self._seed, epoch, stream=Stream.PLACES, first=0, count=n)
        draws = Draws(
            slide=np.zeros(n, dtype=np.int32),
            y=np.zeros(n),
            x=np.zeros(n),
            layer=layer,
            object_id=np.full(n, NO_OBJECT, dtype=np.int64),
        )
        chosen = layer == Layer.OBJECTS
        self._place_objects(draws, chosen, uniform, turn=slot[chosen], epoch=epoch)
        for kind, table in self._tables.items():
            self._place_cells(draws, layer == kind, uniform, table)
        return draws

    def _shares(self, mix: MixConfig) -> list[float]:
        shares = {
            Layer.OBJECTS: mix.objects,
            Layer.TISSUE: mix.tissue,
            Layer.BACKGROUND: mix.background,
        }
        if mix.objects > 0 and not len(self._boxes):
            raise ConfigError(
                f"no object is annotated on the {len(self.maps)} training slides, and "
                f"sampling.mix.objects is {mix.objects}; annotate some, or set it to 0"
            )
        for kind, other in (
            (Layer.TISSUE, Layer.BACKGROUND),
            (Layer.BACKGROUND, Layer.TISSUE),
        ):
            if self._tables[kind].empty and shares[kind] > 0:
                logger.info("no slide has %s; its share goes to %s", kind.name, other.name)
                shares[other] += shares.pop(kind)
                shares[kind] = 0.0
        return [shares[kind] for kind in Layer]

    def _place_objects(
        self,
        draws: Draws,
        chosen: NDArray[np.bool_],
        uniform: NDArray[np.float64],
        *,
        turn: NDArray[np.int64],
        epoch: int,
    ) -> None:
        """Centre the chosen draws; ``turn`` numbers them from 0 without gaps, in any order."""
        if not len(turn):
            return
        count = len(self._boxes)
        rounds = -(-len(turn) // count)
        orders = np.tile(np.arange(count), (rounds, 1))
        orders = generator(self._seed, epoch, stream=Stream.OBJECTS).permuted(orders, axis=1)
        picked = orders.ravel()[turn]
        y, x, y_end, x_end = self._boxes[picked].T
        draws.object_id[chosen] = picked
        draws.slide[chosen] = self._box_slide[picked]
        draws.y[chosen] = y + uniform[chosen, 1] * (y_end - y)
        draws.x[chosen] = x + uniform[chosen, 2] * (x_end - x)

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
        for centres, place, length, share in (
            (draws.y, row, heights, uniform[chosen, 1]),
            (draws.x, column, widths, uniform[chosen, 2]),
        ):
            start = place * cell_px
            centres[chosen] = start + share * (np.minimum(start + cell_px, length) - start)


def _cell_tables(maps: Sequence[SlideMap]) -> dict[Layer, CellTable]:
    tissue = [m.cell_areas * (m.tissue / np.float64(255)) for m in maps]
    background = [m.cell_areas - inside for m, inside in zip(maps, tissue, strict=True)]
    return {Layer.TISSUE: CellTable.of(tissue), Layer.BACKGROUND: CellTable.of(background)}
