"""Owns splitting slides into training and held-out slides, once or per fold."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.config import Recipe
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.sampling.counters import Stream, generator
from wsi_seg.sampling.folds import hold_out, make_folds
from wsi_seg.sampling.groups import group_slides
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.store import SlideStore, open_collection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """Training slides and held-out slides."""

    train: tuple[TrainingSlide, ...]
    validation: tuple[SlideStore, ...]


def split_slides(recipe: Recipe) -> tuple[Split, ...]:
    """Open the recipe's collections and split their slides, once or per fold.

    Slides with pseudo-labels are never held out, and training slides in every fold but those that
    hold out a slide of their group.

    Raises
    ------
    ConfigError
        If a name is unknown, occurs twice or in both sets, a group is split, or no training slide
        remains.
    StoreError
        If a collection or an object table cannot be opened.
    """
    stores = _open_all(recipe.data.stores)
    labelled, pool = _pool(recipe, stores)
    slides = {name: TrainingSlide.of(stores[name], recipe.data.label) for name in pool}
    validation = recipe.data.validation
    named: list[str] | None = None
    if not isinstance(validation, float | int):
        named = _require_names("data.validation", validation, stores, labelled)
    groups = group_slides(recipe.data, sorted({*pool, *(named or ())}))
    if recipe.data.folds is not None:
        parts = _folds(recipe, recipe.data.folds, slides, groups)
    elif named is not None:
        parts = (_require_fitting(recipe, named, slides, labelled),)
    else:
        parts = (_drawn(recipe, slides, groups),)
    declared = recipe.data.groups is not None or recipe.data.group_pattern is not None
    return tuple(_split(stores, slides, part, groups, declared=declared) for part in parts)


def learned_from(recipe: Recipe) -> tuple[SlideStore, ...]:
    """Return the slides that a run may train on: all but those listed in ``data.validation``.

    Slides held out at random are included, because other seeds or folds train on them.

    Raises
    ------
    ConfigError
        If a name is unknown or occurs twice, or there is no such slide.
    StoreError
        If a collection cannot be opened.
    """
    stores = _open_all(recipe.data.stores)
    labelled, pool = _pool(recipe, stores)
    held_out = recipe.data.validation
    if isinstance(held_out, float | int):
        return tuple(stores[name] for name in pool)
    _require_names("data.validation", held_out, stores, labelled)
    train = tuple(stores[name] for name in pool if name not in held_out)
    if not train:
        raise ConfigError(_nothing_left(pool))
    return train


def _pool(
    recipe: Recipe, stores: Mapping[str, SlideStore]
) -> tuple[Mapping[str, SlideStore], list[str]]:
    """Return the slides with the label, and the names of those to split."""
    label = recipe.data.label
    labelled = {name: s for name, s in stores.items() if label in s.label_names()}
    if not labelled:
        known = sorted({found for s in stores.values() for found in s.label_names()})
        raise ConfigError(
            f"got {counted(len(stores), 'slide')} without label {label!r}; their labels are "
            f"{', '.join(known) or 'none'}; run `wsi-seg annotate`, or set data.label"
        )
    if recipe.data.train is None:
        return labelled, sorted(labelled)
    return labelled, _require_names("data.train", recipe.data.train, stores, labelled)


def _nothing_left(pool: Collection[str]) -> str:
    return (
        f"no slide is left to train on: all of {', '.join(pool)} are held out; list fewer in "
        "data.validation"
    )


def _split(
    stores: Mapping[str, SlideStore],
    pool: Mapping[str, TrainingSlide],
    held_out: Sequence[str],
    groups: Mapping[str, str],
    *,
    declared: bool,
) -> Split:
    """Leave out pseudo-labels of held-out groups; refuse other slides of them if declared."""
    held, seen = set(held_out), {groups[name] for name in held_out if name in groups}
    alike = [name for name in pool if name not in held and groups.get(name) in seen]
    split = [name for name in alike if not pool[name].is_pseudo]
    if split and declared:
        raise ConfigError(
            f"data.validation holds out some slides of a group, but not {', '.join(split)}; "
            "expected whole groups: name these, too, or list in data.train the others only"
        )
    if split:
        logger.warning(
            "%s: of the same volume as held-out slides, or copies of them, so that validation "
            "scores are too high; name them in data.validation, too",
            ", ".join(split),
        )
    left_out = held | (set(alike) - set(split))
    train = [name for name in pool if name not in left_out]
    if not train:
        raise ConfigError(_nothing_left(pool))
    if not held_out:
        logger.warning("no slide is held out, so the last epoch counts as the best")
    return Split(tuple(pool[n] for n in train), tuple(stores[n] for n in held_out))


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


def _folds(
    recipe: Recipe, count: int, slides: Mapping[str, TrainingSlide], groups: Mapping[str, str]
) -> tuple[Sequence[str], ...]:
    """Return the slides that each fold holds out; every slide is held out once."""
    areas = {
        name: float(slide.objects.area.sum())
        for name, slide in slides.items()
        if not slide.is_pseudo
    }
    return make_folds(areas, groups, count, seed=recipe.seed)


def _require_fitting(
    recipe: Recipe,
    names: Sequence[str],
    slides: Mapping[str, TrainingSlide],
    labelled: Mapping[str, SlideStore],
) -> Sequence[str]:
    """Return the named held-out slides, if they have manual annotations and are not for training.

    Raises
    ------
    ConfigError
        If they do not.
    """
    label = recipe.data.label
    named = [slides.get(name) or TrainingSlide.of(labelled[name], label) for name in names]
    pseudo = [slide.name for slide in named if slide.is_pseudo]
    if pseudo:
        raise ConfigError(
            f"data.validation: slides {', '.join(pseudo)} have pseudo-labels only; expected "
            "slides with manual annotations"
        )
    both = sorted(set(names) & set(recipe.data.train or ()))
    if both:
        raise ConfigError(f"slides {', '.join(both)} are in data.train and data.validation")
    return names


def _drawn(
    recipe: Recipe, slides: Mapping[str, TrainingSlide], groups: Mapping[str, str]
) -> Sequence[str]:
    """Draw the slides to hold out, if ``data.validation`` is a fraction of them."""
    validation = recipe.data.validation
    assert isinstance(validation, float | int)
    if validation == 0:
        return []
    pool = [name for name, slide in slides.items() if not slide.is_pseudo]
    if len(pool) < 2:
        raise ConfigError(
            f"data.validation is {validation:g}, but {'only ' + pool[0] if pool else 'no slide'} "
            "has manual annotations; annotate another one, or set data.validation to 0"
        )
    count = min(max(1, round(validation * len(pool))), len(pool) - 1)
    areas = {name: float(slides[name].objects.area.sum()) for name in pool}
    draws = generator(recipe.seed, 0, stream=Stream.SPLIT)
    held_out = hold_out(areas, groups, count, draws)
    if len(held_out) == len(pool):
        raise ConfigError(
            f"got one group of {counted(len(pool), 'labelled slide')}; expected "
            "several groups, or names in data.validation"
        )
    return held_out


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
            raise ConfigError(f"{key}: slide {name!r} lacks data.label; its labels are: {known}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{key}: got {', '.join(names)}; expected each slide once")
    return list(names)
