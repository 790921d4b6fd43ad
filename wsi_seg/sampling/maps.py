"""Owns the training slides: objects and masks are read once for all folds and phases of a run."""

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

# Source of objects from pseudo-labels.
PSEUDO = "pseudo"


@dataclass(frozen=True, slots=True)
class _Cells:
    """Arguments of one `map_cells` call, as a cache key."""

    label: str
    cell_px: float
    value: int | None = None
    mean: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Objects that patches are drawn around; see `SlideMap`."""

    boxes: NDArray[np.float64]
    class_ids: NDArray[np.uint8]
    areas: NDArray[np.float64]
    sources: NDArray[np.str_]
    lesions: NDArray[np.str_]
    diameters_mm: NDArray[np.float64]

    def as_one(self) -> "_Drawn":
        """Merge all objects into one."""
        box = np.concatenate([self.boxes[:, :2].min(axis=0), self.boxes[:, 2:].max(axis=0)])
        area = self.areas.sum(keepdims=True)
        none = np.full(1, ""), np.full(1, np.nan)
        return _Drawn(box[None], self.class_ids[:1], area, self.sources[:1], *none)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSlide:
    """A slide with the objects of its label and a cache of its masks.

    Reuse one instance for all folds and phases of a run, so that `map` reads each mask once.

    Parameters
    ----------
    store
        The slide.
    label
        Name of the label used as ground truth.
    objects
        Object table of the label.

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
            If the label has no object table, or the table is damaged.
        """
        return cls(store, label, read_objects(store, label))

    @property
    def name(self) -> str:
        """Name of the slide."""
        return self.store.name

    @property
    def is_pseudo(self) -> bool:
        """Whether any object is a pseudo-label, by its source."""
        return bool((self.objects.source == PSEUDO).any())

    def class_ids(self, recipe: Recipe) -> NDArray[np.uint8]:
        """Return the class of each object that the recipe draws patches around, ``(n,)`` uint8."""
        return self._drawn(recipe).class_ids

    def map(self, recipe: Recipe, side: tuple[float, float]) -> SlideMap:
        """Build the importance map of the slide.

        Parameters
        ----------
        recipe
            Recipe of one phase: its classes, mix and cell size are used.
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
        # A patch inside a larger bounding box may miss the object.
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
        """Return the number of cells of `map`."""
        extent, cell_px = self.store.pyramid.extent, self._cell_px(recipe)
        return cells_along(extent.height, cell_px) * cells_along(extent.width, cell_px)

    def _cell_px(self, recipe: Recipe) -> float:
        """Return the side of a cell in level-0 pixels."""
        base_mpp, sampling = self.store.pyramid.mpp, recipe.sampling
        if recipe.mpp is None or base_mpp is None:
            return float(sampling.cell_px)
        return max(1.0, sampling.cell_um / base_mpp)

    def _drawn(self, recipe: Recipe) -> _Drawn:
        ids_of = {
            part: entry.id for entry in recipe.class_table for part in (entry.name, *entry.parts)
        }
        extent, base_mpp = self.store.pyramid.extent, self.store.pyramid.mpp
        # Annotations may extend past the slide, or be outside it.
        lengths = np.array([extent.height, extent.width] * 2, dtype=np.float64)
        boxes = np.clip(self.objects.bbox, 0, lengths)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        kept = visible & np.isin(self.objects.class_name, list(ids_of))
        names = self.objects.class_name[kept]
        px_area = 1.0 if base_mpp is None else base_mpp**2
        found = _Drawn(
            boxes[kept],
            np.array([ids_of[str(name)] for name in names], dtype=np.uint8),
            self.objects.area[kept] / px_area,
            self.objects.source[kept],
            self.objects.lesion[kept],
            self.objects.diameter_mm[kept],
        )
        return found.as_one() if recipe.sampling.unit == "slide" and names.size else found

    def _regions(self, recipe: Recipe, cell_px: float) -> Mapping[str, Share]:
        """Return the cells of the regions that the recipe draws from and the slide has."""
        name, mix = recipe.sampling.regions_label, recipe.sampling.mix.regions
        if not mix or not self._has(name):
            return {}
        label = self.store.label(name)
        classes = label.classes if label.names_classes else ClassTable(())
        return {
            region: self._share(_Cells(name, cell_px, value=classes.id_of(region)))
            for region in mix
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
            share.flags.writeable = False  # shared by the maps of all phases
            self._cells[cells] = share
        return self._cells[cells]
