"""Owns the order in which objects take their turns: each in a round, or some more often."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import SamplingConfig
from wsi_seg.config.sampling import SizesConfig, StrataConfig
from wsi_seg.errors import ConfigError
from wsi_seg.sampling.counters import Stream, generator
from wsi_seg.sampling.importance import SlideMap

Indices = NDArray[np.int64]


def repeats_of(diameters_mm: NDArray[np.float64], sizes: SizesConfig) -> Indices:
    """Tell how often objects of these diameters count in a round, ``(n,)``."""
    repeats = np.array([*sizes.repeats, 1 if sizes.above == "keep" else 0])
    found: Indices = repeats[np.searchsorted(np.array(sizes.edges_mm), diameters_mm, side="right")]
    return found


def stratum_of(ratios: NDArray[np.float64], strata: StrataConfig) -> Indices:
    """Bin of objects that cover these shares of a patch, ``(n,)``."""
    found: Indices = np.minimum(np.rint(ratios * strata.scale), strata.bins).astype(np.int64)
    return found


def object_groups(
    maps: Sequence[SlideMap], sampling: SamplingConfig, patch_px2: NDArray[np.float64]
) -> tuple[tuple[Indices, ...], tuple[float, ...]]:
    """Objects in groups, and how often each group is drawn.

    Parameters
    ----------
    maps
        One per slide; objects are counted through them one after the other.
    sampling
        Says what counts more often, and what makes a group.
    patch_px2
        Area of a patch in level-0 px² of each slide.

    Returns
    -------
    groups : tuple of NDArray[np.int64]
        Indices of objects; one that counts more often occurs as often. No group is empty.
    shares : tuple of float
        Of each group; the sum is 1, or 0 where there is no group.

    Raises
    ------
    ConfigError
        If no object is of a source that has a share.
    """
    areas = np.concatenate([m.areas * m.px_area for m in maps])
    repeats = np.ones(len(areas), dtype=np.int64)
    if sampling.sizes is not None:
        repeats = repeats_of(2e-3 * np.sqrt(areas / np.pi), sampling.sizes)
    key = np.zeros(len(areas), dtype=np.int64)
    if sampling.strata is not None:
        shares = [m.areas / area for m, area in zip(maps, patch_px2, strict=True)]
        key = stratum_of(np.minimum(np.concatenate(shares), 1.0), sampling.strata)
    sources = np.concatenate([m.sources for m in maps])
    kinds = []
    if sampling.balance == "class":
        kinds.append(np.concatenate([m.class_ids for m in maps]))
    if sampling.balance == "source" or sampling.sources:
        kinds.append(sources)
    for kind in kinds:
        _, number = np.unique(kind, return_inverse=True)
        key = key * (int(number.max(initial=0)) + 1) + number
    order = np.repeat(np.arange(len(areas)), repeats)
    if sampling.sources:
        order = order[np.isin(sources[order], list(sampling.sources))]
    groups = tuple(order[key[order] == value] for value in np.unique(key[order]))
    if not sampling.sources:
        return groups, (1 / max(1, len(groups)),) * len(groups)
    return groups, _source_shares([str(sources[group[0]]) for group in groups], sampling.sources)


def _source_shares(groups: Sequence[str], shares: Mapping[str, float]) -> tuple[float, ...]:
    """Share of each group, given its source; those of one source have the same."""
    absent = [name for name in shares if name not in groups]
    if absent:
        raise ConfigError(
            f"sampling.sources names {', '.join(absent)}; the objects to draw are from "
            f"{', '.join(sorted(set(groups))) or 'other sources'}; expected some of each"
        )
    total = sum(shares.values())
    return tuple(shares[name] / total / groups.count(name) for name in groups)


def round_robin(
    groups: Sequence[Indices], shares: Sequence[float], count: int, *, seed: int, epoch: int
) -> Indices:
    """Objects of an epoch's object draws.

    Every group gets its share of the draws (one more or less), and goes through its objects in a
    fresh order before any comes again.

    Returns
    -------
    NDArray[np.int64]
        ``(count,)`` indices, in the order of the groups.
    """
    draws = generator(seed, epoch, stream=Stream.OBJECTS)
    # A group that gets one more must not always be the same.
    order = draws.permutation(len(groups))
    ends = np.rint(np.cumsum(np.array(shares)[order]) * count).astype(np.int64)
    wanted = np.empty(len(groups), dtype=np.int64)
    wanted[order] = np.diff(ends, prepend=0)
    picked = []
    for group, number in zip(groups, wanted.tolist(), strict=True):
        rounds = np.tile(group, (-(-number // len(group)), 1))
        picked.append(draws.permuted(rounds, axis=1).ravel()[:number])
    return np.concatenate(picked) if picked else np.empty(0, dtype=np.int64)
