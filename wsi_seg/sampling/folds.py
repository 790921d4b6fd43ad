"""Owns cross-validation folds: groups stay together, and foreground is stratified."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError

# Bins of foreground area for stratification.
_BINS = 4


def make_folds(
    areas: Mapping[str, float], groups: Mapping[str, str], count: int, *, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Split slides into folds.

    Parameters
    ----------
    areas
        Foreground area of each slide, in any unit; slides are stratified by it.
    groups
        Group of each slide, such as its patient; a group is never split. A slide that is not listed
        is its own group.
    count
        Number of folds.
    seed
        Random seed.

    Returns
    -------
    tuple of tuple of str
        Names of the slides of each fold, sorted; every slide is in exactly one.

    Raises
    ------
    ConfigError
        If there are fewer groups than folds.
    """
    names = sorted(areas)
    group = np.array([groups.get(name, name) for name in names])
    if len(set(group)) < count:
        raise ConfigError(
            f"data.folds is {count}, but the labelled slides ({', '.join(names)}) form "
            f"only {counted(len(set(group)), 'group')}; expected at least one group per fold"
        )
    strata = _strata(np.array([areas[name] for name in names]), count)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    parts = [part for _, part in splitter.split(strata, strata, group)]
    if min(len(part) for part in parts) == 0:  # few groups of very different size
        splitter = GroupKFold(count, shuffle=True, random_state=seed % 2**32)
        parts = [part for _, part in splitter.split(strata, strata, group)]
    return tuple(tuple(names[index] for index in sorted(part)) for part in parts)


def hold_out(
    areas: Mapping[str, float], groups: Mapping[str, str], count: int, draws: np.random.Generator
) -> tuple[str, ...]:
    """Choose slides to hold out: whole groups, stratified by foreground area.

    Groups are taken in a random order that interleaves the bins of foreground area in proportion to
    their number of groups, until there are enough slides.

    Parameters
    ----------
    areas, groups
        See `make_folds`.
    count
        Number of slides; the last group may exceed it.
    draws
        Random generator.
    """
    members: dict[str, list[str]] = {}
    for name in areas:
        members.setdefault(groups.get(name, name), []).append(name)
    totals = np.array([sum(areas[name] for name in names) for names in members.values()])
    strata = _strata(totals, 1)
    place = np.empty(len(totals))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        order = draws.permutation(len(inside))
        place[inside] = (order + draws.random()) / len(inside)
    taken: list[str] = []
    parts = list(members.values())
    for number in np.argsort(place, kind="stable").tolist():
        if len(taken) >= count:
            break
        taken += parts[number]
    return tuple(sorted(taken))


def _strata(areas: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Bin areas so that each bin has at least ``count`` slides; slides without foreground are 0."""
    for bins in range(_BINS, 0, -1):
        edges = (
            np.quantile(areas[areas > 0], np.linspace(0, 1, bins + 1)[1:-1])
            if ((areas > 0).any())
            else np.empty(0)
        )
        strata = np.where(areas > 0, 1 + np.searchsorted(edges, areas), 0)
        _, found, sizes = np.unique(strata, return_inverse=True, return_counts=True)
        if sizes.min() >= count:
            return found
    return np.zeros(len(areas), dtype=np.int64)
