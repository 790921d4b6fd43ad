"""Owns the order in which objects take their turns: each in a round, or some more often."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_seg.config import SamplingConfig
from wsi_seg.config.sampling import SizesConfig, StrataConfig
from wsi_seg.sampling.counters import Stream, generator
from wsi_seg.sampling.importance import SlideMap

Indices = NDArray[np.int64]


def times_of(diameters_mm: NDArray[np.float64], sizes: SizesConfig) -> Indices:
    """Tell how often objects of these diameters count in a round, ``(n,)``."""
    times = np.array([*sizes.times, 1 if sizes.beyond == "keep" else 0])
    found: Indices = times[np.searchsorted(np.array(sizes.edges_mm), diameters_mm, side="right")]
    return found


def stratum_of(ratios: NDArray[np.float64], strata: StrataConfig) -> Indices:
    """Bin of objects that cover these shares of a patch, ``(n,)``."""
    found: Indices = np.minimum(np.rint(ratios * strata.scale), strata.bins).astype(np.int64)
    return found


def object_groups(
    maps: Sequence[SlideMap], sampling: SamplingConfig, patch_px2: NDArray[np.float64]
) -> tuple[Indices, ...]:
    """Objects in groups that are drawn as often as each other.

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
    tuple of NDArray[np.int64]
        Indices of objects; one that counts more often occurs as often. No group is empty.
    """
    areas = np.concatenate([m.areas * m.px_area for m in maps])
    times = np.ones(len(areas), dtype=np.int64)
    if sampling.sizes is not None:
        times = times_of(2e-3 * np.sqrt(areas / np.pi), sampling.sizes)
    key = np.zeros(len(areas), dtype=np.int64)
    if sampling.strata is not None:
        shares = [m.areas / area for m, area in zip(maps, patch_px2, strict=True)]
        key = stratum_of(np.minimum(np.concatenate(shares), 1.0), sampling.strata)
    if sampling.balance != "none":
        kinds = [m.class_ids if sampling.balance == "class" else m.sources for m in maps]
        _, kind = np.unique(np.concatenate(kinds), return_inverse=True)
        key = key * (int(kind.max(initial=0)) + 1) + kind
    order = np.repeat(np.arange(len(areas)), times)
    return tuple(order[key[order] == value] for value in np.unique(key[order]))


def take_turns(groups: Sequence[Indices], count: int, seed: int, epoch: int) -> Indices:
    """Objects of an epoch's object draws.

    Every group gets the same number of draws (one more or less), and goes through its objects in
    a fresh order before any comes again.

    Returns
    -------
    NDArray[np.int64]
        ``(count,)`` indices, in the order of the groups.
    """
    draws = generator(seed, epoch, stream=Stream.OBJECTS)
    ends = np.rint(np.arange(1, len(groups) + 1) * count / len(groups)).astype(np.int64)
    # A group that gets one more must not always be the same.
    wanted = draws.permutation(np.diff(ends, prepend=0))
    picked = []
    for group, number in zip(groups, wanted.tolist(), strict=True):
        rounds = np.tile(group, (-(-number // len(group)), 1))
        picked.append(draws.permuted(rounds, axis=1).ravel()[:number])
    return np.concatenate(picked) if picked else np.empty(0, dtype=np.int64)
