"""Owns building the patch sampler of a run from the importance maps of its slides."""

from collections.abc import Sequence

import numpy as np
import psutil

from wsi_seg.config import Recipe
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.masks.boundary import BOUNDARY
from wsi_seg.reading.view import View
from wsi_seg.sampling import GridSampler, PatchSampler, SlideMap
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.sampling.memory import maps_nbytes
from wsi_seg.store import SlideStore


def patch_sampler(
    slides: Sequence[TrainingSlide], recipe: Recipe, *, batch: int = 1
) -> PatchSampler | GridSampler:
    """Build the patch sampler of a recipe.

    Raises
    ------
    ConfigError
        If there is nothing to draw from, ``sampling.sizes`` is set but mpp is unknown, or the
        importance maps do not fit into memory.
    """
    _require_memory(slides, recipe)
    maps = map_slides(slides, recipe)
    sampling = recipe.sampling
    unknown = [slide.name for slide in slides if slide.store.pyramid.mpp is None]
    if sampling.sizes is not None and (recipe.mpp is None or unknown):
        raise ConfigError(
            f"sampling.sizes is in mm; expected mpp in the recipe (got {recipe.mpp}) and on all "
            f"slides (unknown: {', '.join(unknown) or 'none'}); give --mpp to `wsi-seg tile`"
        )
    sides = np.array([patch_sides(slide.store, recipe) for slide in slides])
    if sampling.grid is not None:
        return GridSampler(maps, sampling.grid, sides=sides, seed=recipe.seed, batch=batch)
    return PatchSampler(maps, sampling, sides=sides, seed=recipe.seed, batch=batch)


def _require_memory(slides: Sequence[TrainingSlide], recipe: Recipe) -> None:
    """Raise a `ConfigError` if the importance maps would not fit into memory."""
    train, sampling = recipe.train, recipe.sampling
    cells = sum(slide.cells(recipe) for slide in slides)
    processes = (1 + train.workers) * train.devices
    needed = maps_nbytes(cells, len(slides), sampling, processes=processes)
    free = psutil.virtual_memory().available
    if needed > free:
        key, side = ("cell_um", sampling.cell_um) if recipe.mpp else ("cell_px", sampling.cell_px)
        raise ConfigError(
            f"the importance maps of {counted(len(slides), 'slide')} have {cells / 1e6:.0f} "
            f"million cells and need {needed / 1e9:.1f} GB in {counted(processes, 'process')}, but "
            f"{free / 1e9:.1f} GB are free; set sampling.{key} above {side:g}, for example "
            "to an eighth of a patch, or use fewer train.workers"
        )


def map_slides(slides: Sequence[TrainingSlide], recipe: Recipe) -> tuple[SlideMap, ...]:
    """Build the importance map of each slide.

    Raises
    ------
    ConfigError
        If one of the recipe's classes has no object on any of the slides.
    """
    require_classes(slides, recipe)
    return tuple(slide.map(recipe, patch_sides(slide.store, recipe)) for slide in slides)


def require_classes(slides: Sequence[TrainingSlide], recipe: Recipe) -> None:
    """Check that each class of the recipe has an object.

    Raises
    ------
    ConfigError
        If a class has no object on any of the slides.
    """
    seen = np.concatenate([slide.class_ids(recipe) for slide in slides])
    absent = [
        entry.name
        for entry in recipe.class_table
        # The boundary class between touching objects has no objects of its own.
        if not (seen == entry.id).any() and BOUNDARY not in entry.parts
    ]
    if absent:
        raise ConfigError(
            f"class {', '.join(absent)} has no object in label {recipe.data.label!r} of the "
            f"{counted(len(slides), 'slide')} ({', '.join(s.name for s in slides)}); expected at "
            "least one; annotate some, train on other slides, or remove the class from the recipe"
        )


def patch_sides(store: SlideStore, recipe: Recipe) -> tuple[float, float]:
    """Return height and width of a patch in level-0 pixels of a slide."""
    full, seen = store.pyramid.extent, View.of(recipe).scale(store.pyramid, name=store.name).extent
    side = recipe.patch_px
    return side * full.height / seen.height, side * full.width / seen.width
