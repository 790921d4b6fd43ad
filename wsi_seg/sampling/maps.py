"""Owns the slides that training draws from: objects and masks are read once, for all its stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import ClassTable
from wsi_seg.config import Recipe
from wsi_seg.masks import Objects, read_objects
from wsi_seg.sampling.importance import HARD_NEGATIVES, Share, SlideMap, cells_along, map_cells
from wsi_seg.store import SlideStore
from wsi_seg.store.class_view import any_plane
from wsi_seg.store.names import TISSUE

# Source of objects that a network found.
PSEUDO = "pseudo"


@dataclass(frozen=True, slots=True)
class _Cells:
    """What a mask is cut into; see `map_cells`."""

    label: str
    cell_px: float
    value: int | None = None
    mean: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Objects that patches are drawn around, see `SlideMap`."""

    boxes: NDArray[np.float64]
    class_ids: NDArray[np.uint8]
    areas: NDArray[np.float64]
    sources: NDArray[np.str_]
    lesions: NDArray[np.str_]
    diameters_mm: NDArray[np.float64]

    def as_one(self) -> "_Drawn":
        """One object that is all of them."""
        box = np.concatenate([self.boxes[:, :2].min(axis=0), self.boxes[:, 2:].max(axis=0)])
        area = self.areas.sum(keepdims=True)
        none = np.full(1, ""), np.full(1, np.nan)
        return _Drawn(box[None], self.class_ids[:1], area, self.sources[:1], *none)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSlide:
    """A slide, the objects of its label, and what was read of its masks so far.

    Hand one on through all folds and phases of a run: `map` then reads each mask once.

    Parameters
    ----------
    store
        The slide.
    label
        Name of the label that is learned.
    objects
        Its object table.

    Examples
    --------
    >>> slide = TrainingSlide.of(open_collection("store.zarr")["a"], "annotations")
    >>> slide.map(recipe, (256.0, 256.0)).tissue.dtype
    dtype('uint8')
    """

    store: SlideStore
    label: str
    objects: Objects
    _cells: dict[_Cells, Share] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, store: SlideStore, label: str) -> "TrainingSlide":
        """Read the objects of a slide's label.

        Raises
        ------
        StoreError
            If the label has no object table, or it is damaged.
        """
        return cls(store, label, read_objects(store, label))

    @property
    def name(self) -> str:
        """Name of the slide."""
        return self.store.name

    @property
    def is_pseudo(self) -> bool:
        """Whether the label was predicted, not drawn; the sources of its objects say so."""
        return bool((self.objects.source == PSEUDO).any())

    def class_ids(self, recipe: Recipe) -> NDArray[np.uint8]:
        """Class of each object that the recipe draws patches around, ``(n,)`` uint8."""
        return self._drawn(recipe).class_ids

    def map(self, recipe: Recipe, side: tuple[float, float]) -> SlideMap:
        """Make the importance map of the slide, as a recipe without phases asks for it.

        Parameters
        ----------
        recipe
            Gives classes, mix and the size of the cells.
        side
            Height and width of a patch in level-0 pixels.

        Raises
        ------
        StoreError
            If a mask cannot be read.
        """
        base_mpp, extent = self.store.pyramid.mpp, self.store.pyramid.extent
        cell_px = self._cell_px(recipe)
        px_area = 1.0 if recipe.mpp is None or base_mpp is None else base_mpp**2
        drawn = self._drawn(recipe)
        mix = recipe.sampling.mix
        # A patch around a box that is larger than itself may show none of the object.
        larger = bool((drawn.boxes[:, 2:] - drawn.boxes[:, :2] > side).any())
        covers = mix.boundary > 0 or (mix.regions and mix.objects > 0) or larger
        tissue = self._share(_Cells(TISSUE, cell_px)) if self._has(TISSUE) else None
        return SlideMap(
            name=self.name,
            extent=extent,
            px_area=px_area,
            cell_px=cell_px,
            tissue=map_cells(None, extent, cell_px) if tissue is None else tissue,
            boxes=drawn.boxes,
            class_ids=drawn.class_ids,
            areas=drawn.areas,
            sources=drawn.sources,
            lesions=drawn.lesions,
            diameters_mm=drawn.diameters_mm,
            covered=self._share(_Cells(self.label, cell_px)) if covers else None,
            hard_negatives=self._share(_Cells(HARD_NEGATIVES, cell_px, mean=True))
            if mix.hard_negatives > 0 and self._has(HARD_NEGATIVES)
            else None,
            regions=self._regions(recipe, cell_px),
        )

    def cells(self, recipe: Recipe) -> int:
        """Count the cells that `map` has."""
        extent, cell_px = self.store.pyramid.extent, self._cell_px(recipe)
        return cells_along(extent.height, cell_px) * cells_along(extent.width, cell_px)

    def _cell_px(self, recipe: Recipe) -> float:
        """Side of a cell in level-0 pixels."""
        base_mpp, sampling = self.store.pyramid.mpp, recipe.sampling
        if recipe.mpp is None or base_mpp is None:
            return float(sampling.cell_px)
        return max(1.0, sampling.cell_um / base_mpp)

    def _drawn(self, recipe: Recipe) -> _Drawn:
        ids_of = {
            part: entry.id for entry in recipe.class_table for part in (entry.name, *entry.parts)
        }
        extent, base_mpp = self.store.pyramid.extent, self.store.pyramid.mpp
        # An annotation may stick out of its slide, or miss it.
        lengths = np.array([extent.height, extent.width] * 2, dtype=np.float64)
        boxes = np.clip(self.objects.bbox, 0, lengths)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        wanted = visible & np.isin(self.objects.class_name, list(ids_of))
        names = self.objects.class_name[wanted]
        px_area = 1.0 if base_mpp is None else base_mpp**2
        found = _Drawn(
            boxes[wanted],
            np.array([ids_of[str(name)] for name in names], dtype=np.uint8),
            self.objects.area[wanted] / px_area,
            self.objects.source[wanted],
            self.objects.lesion[wanted],
            self.objects.diameter_mm[wanted],
        )
        return found.as_one() if recipe.sampling.unit == "slide" and names.size else found

    def _regions(self, recipe: Recipe, cell_px: float) -> Mapping[str, Share]:
        """Cells of the regions that the recipe draws from and the slide has."""
        name, wanted = recipe.sampling.regions_label, recipe.sampling.mix.regions
        if not wanted or not self._has(name):
            return {}
        label = self.store.label(name)
        classes = label.classes if label.names_classes else ClassTable(())
        return {
            region: self._share(_Cells(name, cell_px, value=classes.id_of(region)))
            for region in wanted
            if region in classes.names
        }

    def _has(self, label: str) -> bool:
        return label in self.store.label_names()

    def _share(self, cells: _Cells) -> Share:
        if cells not in self._cells:
            share = map_cells(
                any_plane(self.store.planes(cells.label)),
                self.store.pyramid.extent,
                cells.cell_px,
                value=cells.value,
                mean=cells.mean,
            )
            share.flags.writeable = False  # the maps of all stages share it
            self._cells[cells] = share
        return self._cells[cells]
