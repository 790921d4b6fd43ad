"""Owns which slides a run learns from: opens them, holds some out, maps the others for sampling."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import ClassTable
from wsi_seg.config import Recipe
from wsi_seg.errors import ConfigError
from wsi_seg.learn.groups import group_slides
from wsi_seg.masks import read_objects
from wsi_seg.masks.objects import FILE
from wsi_seg.reading.view import View
from wsi_seg.sampling import GridSampler, PatchSampler, SlideMap, map_cells
from wsi_seg.sampling.counters import Stream, generator
from wsi_seg.sampling.folds import hold_out, make_folds
from wsi_seg.sampling.importance import HARD, TISSUE
from wsi_seg.store import Multiscale, SlideStore, open_collection
from wsi_seg.store.remote import below

logger = logging.getLogger(__name__)

# Source of objects that a network found.
PSEUDO = "pseudo"


@dataclass(frozen=True, slots=True)
class Split:
    """Slides learned from, and slides held out."""

    train: tuple[SlideStore, ...]
    validation: tuple[SlideStore, ...]


def is_pseudo(store: SlideStore, label: str) -> bool:
    """Whether a label of a slide was predicted, not drawn; the table of its objects says so."""
    if not below(store.path, "labels", label, FILE).exists():
        return False
    return bool((read_objects(store, label).source == PSEUDO).any())


def split_slides(recipe: Recipe) -> tuple[Split, ...]:
    """Open the recipe's collections and part their slides: once, or once per fold.

    Slides with pseudo-labels are learned from in every fold and held out in none.

    Raises
    ------
    ConfigError
        If a name is unknown, is on both sides or occurs twice, or no slide is left to train on.
    StoreError
        If a collection cannot be opened.
    """
    stores = _open_all(recipe.data.stores)
    label = recipe.data.label
    labelled = {name: s for name, s in stores.items() if label in s.label_names()}
    if not labelled:
        known = sorted({found for s in stores.values() for found in s.label_names()})
        raise ConfigError(
            f"none of the {len(stores)} slides has a label {label!r}; they have "
            f"{', '.join(known) or 'none'}; run `wsi-seg annotate`, or set data.label"
        )
    if recipe.data.train is None:
        pool = sorted(labelled)
    else:
        pool = _require_names("data.train", recipe.data.train, stores, labelled)
    guessed = {name for name in pool if is_pseudo(stores[name], label)}
    drawn = [name for name in pool if name not in guessed]
    if recipe.data.folds is not None:
        parts = _folds(recipe, recipe.data.folds, {name: stores[name] for name in drawn})
    else:
        parts = (_held_out(recipe, drawn, stores, labelled),)
    return tuple(_split(stores, pool, held_out) for held_out in parts)


def _split(stores: Mapping[str, SlideStore], pool: Sequence[str], held_out: Sequence[str]) -> Split:
    train = [name for name in pool if name not in held_out]
    if not train:
        raise ConfigError(
            f"no slide is left to train on: all of {', '.join(pool)} are held out; name fewer in "
            "data.validation"
        )
    if not held_out:
        logger.warning("no slide is held out, so the last epoch counts as the best")
    return Split(tuple(stores[n] for n in train), tuple(stores[n] for n in held_out))


def map_slides(stores: Sequence[SlideStore], recipe: Recipe) -> tuple[SlideMap, ...]:
    """Make the importance map of each slide.

    Raises
    ------
    ConfigError
        If one of the recipe's classes has no object on any of the slides.
    """
    maps = tuple(_map_store(store, recipe) for store in stores)
    seen = np.concatenate([m.class_ids for m in maps])
    absent = [entry.name for entry in recipe.class_table if not (seen == entry.id).any()]
    if absent:
        raise ConfigError(
            f"class {', '.join(absent)} has no object in label {recipe.data.label!r} of the "
            f"{len(maps)} training slides ({', '.join(m.name for m in maps)}); expected at least "
            "one; annotate some, train on other slides, or take the class out of the recipe"
        )
    return maps


def patch_sampler(
    stores: Sequence[SlideStore], recipe: Recipe, *, batch: int = 1
) -> PatchSampler | GridSampler:
    """Make what draws the patches of a run, as the recipe says.

    Raises
    ------
    ConfigError
        If there is nothing to draw from, or sizes are in mm and mpp is unknown.
    """
    maps = map_slides(stores, recipe)
    sampling = recipe.sampling
    unknown = [store.name for store in stores if store.pyramid.mpp is None]
    if sampling.sizes is not None and (recipe.mpp is None or unknown):
        raise ConfigError(
            f"sampling.sizes is in mm; expected mpp in the recipe (got {recipe.mpp}) and on all "
            f"slides (unknown: {', '.join(unknown) or 'none'}); give --mpp to `wsi-seg tile`"
        )
    sides = np.array([patch_sides(store, recipe) for store in stores])
    if sampling.grid is not None:
        return GridSampler(maps, sampling.grid, sides=sides, seed=recipe.seed, batch=batch)
    return PatchSampler(maps, sampling, sides=sides, seed=recipe.seed, batch=batch)


def patch_sides(store: SlideStore, recipe: Recipe) -> tuple[float, float]:
    """Height and width of a patch in level-0 px of a slide."""
    full, seen = store.pyramid.extent, View.of(recipe).scale(store.pyramid, name=store.name).extent
    side = recipe.patch_px
    return side * full.height / seen.height, side * full.width / seen.width


def _open_all(paths: Sequence[Path]) -> dict[str, SlideStore]:
    stores: dict[str, SlideStore] = {}
    for path in paths:
        for store in open_collection(path):
            if store.name in stores:
                raise ConfigError(
                    f"slide {store.name!r} is both in {stores[store.name].path.parent} and in "
                    f"{path}; expected each name once in data.stores"
                )
            stores[store.name] = store
    if not stores:
        raise ConfigError(
            f"there is no slide in {', '.join(map(str, paths))}; run `wsi-seg tile` first"
        )
    return stores


def _folds(recipe: Recipe, count: int, pool: Mapping[str, SlideStore]) -> tuple[Sequence[str], ...]:
    """Slides that each fold holds out; every slide is held out once."""
    label = recipe.data.label
    areas = {name: float(read_objects(store, label).area.sum()) for name, store in pool.items()}
    return make_folds(areas, group_slides(recipe.data, sorted(pool)), count, seed=recipe.seed)


def _held_out(
    recipe: Recipe,
    pool: Sequence[str],
    stores: Mapping[str, SlideStore],
    labelled: Mapping[str, SlideStore],
) -> list[str]:
    wanted = recipe.data.validation
    if not isinstance(wanted, float | int):
        names = _require_names("data.validation", wanted, stores, labelled)
        guessed = [name for name in names if is_pseudo(labelled[name], recipe.data.label)]
        if guessed:
            raise ConfigError(
                f"data.validation: slides {', '.join(guessed)} have pseudo-labels only; expected "
                "slides that were labelled by people"
            )
        both = sorted(set(names) & set(recipe.data.train or ()))
        if both:
            raise ConfigError(f"slides {', '.join(both)} are in data.train and data.validation")
        return names
    if wanted == 0:
        return []
    if len(pool) < 2:
        raise ConfigError(
            f"data.validation is {wanted:g}, but there is one labelled slide only ({pool[0]}); "
            "label another one, or set data.validation to 0 to hold out none"
        )
    count = min(max(1, round(wanted * len(pool))), len(pool) - 1)
    order = generator(recipe.seed, 0, stream=Stream.SPLIT).permutation(len(pool))
    held_out = hold_out(pool, group_slides(recipe.data, pool), count, order)
    if len(held_out) == len(pool):
        raise ConfigError(
            f"all {len(pool)} labelled slides are one group; expected several, or names in "
            "data.validation"
        )
    return list(held_out)


def _require_names(
    key: str,
    names: Sequence[str],
    stores: Mapping[str, SlideStore],
    labelled: Mapping[str, SlideStore],
) -> list[str]:
    for name in names:
        if name not in stores:
            raise ConfigError(f"{key}: got slide {name!r}; there are {', '.join(sorted(stores))}")
        if name not in labelled:
            known = ", ".join(stores[name].label_names()) or "none"
            raise ConfigError(f"{key}: slide {name!r} lacks the label to learn; it has: {known}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{key}: got {', '.join(names)}; expected each slide once")
    return list(names)


def _map_store(store: SlideStore, recipe: Recipe) -> SlideMap:
    base_mpp = store.pyramid.mpp
    if recipe.mpp is None or base_mpp is None:
        cell_px, px_area = float(recipe.sampling.cell_px), 1.0
    else:
        cell_px, px_area = max(1.0, recipe.sampling.cell_um / base_mpp), base_mpp**2
    objects = read_objects(store, recipe.data.label)
    ids_of = {part: entry.id for entry in recipe.class_table for part in (entry.name, *entry.parts)}
    extent = store.pyramid.extent
    # An annotation may stick out of its slide, or miss it.
    sides = np.array([extent.height, extent.width] * 2, dtype=np.float64)
    boxes = np.clip(objects.bbox, 0, sides)
    visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    wanted = visible & np.isin(objects.class_name, list(ids_of))
    ids = np.array([ids_of[str(name)] for name in objects.class_name[wanted]], dtype=np.uint8)
    mix = recipe.sampling.mix
    areas, sources = objects.area[wanted], objects.source[wanted]
    boxes = boxes[wanted]
    if recipe.sampling.per == "slide" and len(boxes):
        # One object that is all of them.
        boxes = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]
        ids, areas, sources = ids[:1], areas.sum(keepdims=True), sources[:1]
    label = store.label(recipe.data.label)
    around = (
        mix.boundary > 0 or (mix.regions and mix.objects > 0) or _any_larger(boxes, store, recipe)
    )
    return SlideMap(
        name=store.name,
        extent=extent,
        px_area=px_area,
        cell_px=cell_px,
        tissue=map_cells(_label_or_none(store, TISSUE), extent, cell_px),
        boxes=boxes,
        class_ids=ids,
        areas=areas / (1.0 if base_mpp is None else base_mpp**2),
        sources=sources,
        covered=map_cells(label, extent, cell_px) if around else None,
        hard=_hard(store, cell_px) if mix.hard > 0 else None,
        regions=_regions(store, recipe, cell_px),
    )


def _any_larger(boxes: NDArray[np.float64], store: SlideStore, recipe: Recipe) -> bool:
    """Whether a box is larger than a patch, and so has places where a patch shows no object."""
    return bool((boxes[:, 2:] - boxes[:, :2] > patch_sides(store, recipe)).any())


def _label_or_none(store: SlideStore, name: str) -> Multiscale | None:
    return store.label(name) if name in store.label_names() else None


def _hard(store: SlideStore, cell_px: float) -> NDArray[np.uint8] | None:
    mined = _label_or_none(store, HARD)
    if mined is None:
        return None
    return map_cells(mined, store.pyramid.extent, cell_px, mean=True)


def _regions(store: SlideStore, recipe: Recipe, cell_px: float) -> dict[str, NDArray[np.uint8]]:
    """Cells of the regions that the recipe draws from and the slide has."""
    label = _label_or_none(store, recipe.sampling.regions_label)
    if label is None or not recipe.sampling.mix.regions:
        return {}
    rows = label.attributes.get("classes")
    classes = ClassTable.from_json(rows) if isinstance(rows, list) else ClassTable(())
    return {
        name: map_cells(label, store.pyramid.extent, cell_px, value=classes.id_of(name))
        for name in recipe.sampling.mix.regions
        if name in classes.names
    }
