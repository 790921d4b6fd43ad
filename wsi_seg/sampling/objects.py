"""Owns the order in which objects and lesions take turns: each in a round, or some more often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """What takes its turn: objects, or lesions that several objects are slices of.

    Parameters
    ----------
    members
        Objects, those of one unit next to each other, ``(objects,)``.
    first, count
        Where the objects of each unit begin in ``members``, and how many they are, ``(units,)``.
    groups
        Units in groups; one that counts more often occurs as often. No group is empty.
    shares
        Of each group; the sum is 1, or 0 where there is no group.
    """

    members: Indices
    first: Indices
    count: Indices
    groups: tuple[Indices, ...]
    shares: tuple[float, ...]

    def __len__(self) -> int:
        """Count the turns of a round."""
        return sum(len(group) for group in self.groups)

    @property
    def chances(self) -> NDArray[np.float64]:
        """Chance of each object to be the one that is drawn, ``(objects,)``."""
        of_unit = np.zeros(len(self.first))
        for group, share in zip(self.groups, self.shares, strict=True):
            np.add.at(of_unit, group, share / len(group))
        chances = np.zeros(len(self.members))
        chances[self.members] = np.repeat(of_unit / self.count, self.count)
        return chances

    def draw(self, count: int, *, seed: int, epoch: int) -> Indices:
        """Objects of an epoch's object draws.

        Every group gets its share of the draws (one more or less), and goes through its units in a
        fresh order before any comes again. Of a unit any object may be the one that is drawn.

        Returns
        -------
        NDArray[np.int64]
            ``(count,)`` indices, in the order of the groups.
        """
        draws = generator(seed, epoch, stream=Stream.OBJECTS)
        # A group that gets one more must not always be the same.
        order = draws.permutation(len(self.groups))
        ends = np.rint(np.cumsum(np.array(self.shares)[order]) * count).astype(np.int64)
        wanted = np.empty(len(self.groups), dtype=np.int64)
        wanted[order] = np.diff(ends, prepend=0)
        picked = [np.empty(0, dtype=np.int64)]
        for group, number in zip(self.groups, wanted.tolist(), strict=True):
            rounds = np.tile(group, (-(-number // len(group)), 1))
            picked.append(draws.permuted(rounds, axis=1).ravel()[:number])
        units = np.concatenate(picked)
        place = (draws.random(len(units)) * self.count[units]).astype(np.int64)
        found: Indices = self.members[self.first[units] + place]
        return found


def turns_of(
    maps: Sequence[SlideMap], sampling: SamplingConfig, patch_px2: NDArray[np.float64]
) -> Turns:
    """Objects or lesions in groups, and how often each group is drawn.

    Of a lesion the largest slice says its area, class and source.

    Parameters
    ----------
    maps
        One per slide; objects are counted through them one after the other.
    sampling
        Says what counts more often, and what makes a group.
    patch_px2
        Area of a patch in level-0 px² of each slide.

    Raises
    ------
    ConfigError
        If no object is of a source that has a share.
    """
    areas = np.concatenate([m.areas * m.px_area for m in maps])
    members, first, count = _units(maps, areas, by_lesion=sampling.unit == "lesion")
    largest = members[first]
    repeats = np.ones(len(first), dtype=np.int64)
    if sampling.sizes is not None:
        repeats = repeats_of(_diameters_mm(maps, areas)[largest], sampling.sizes)
    key = np.zeros(len(first), dtype=np.int64)
    if sampling.strata is not None:
        shares = [m.areas / area for m, area in zip(maps, patch_px2, strict=True)]
        key = stratum_of(np.minimum(np.concatenate(shares), 1.0), sampling.strata)[largest]
    sources = np.concatenate([m.sources for m in maps])[largest]
    kinds = []
    if sampling.balance == "class":
        kinds.append(np.concatenate([m.class_ids for m in maps])[largest])
    if sampling.balance == "source" or sampling.sources:
        kinds.append(sources)
    for kind in kinds:
        _, number = np.unique(kind, return_inverse=True)
        key = key * (int(number.max(initial=0)) + 1) + number
    order = np.repeat(np.arange(len(first)), repeats)
    if sampling.sources:
        order = order[np.isin(sources[order], list(sampling.sources))]
    groups = tuple(order[key[order] == value] for value in np.unique(key[order]))
    equal = (1 / max(1, len(groups)),) * len(groups)
    if sampling.sources:
        equal = _source_shares([str(sources[group[0]]) for group in groups], sampling.sources)
    return Turns(members, first, count, groups, equal)


def _units(
    maps: Sequence[SlideMap], areas: NDArray[np.float64], *, by_lesion: bool
) -> tuple[Indices, Indices, Indices]:
    """Objects in the order of their units, and where each unit begins and how many it has.

    Units are in the order of their first objects; of each the largest object comes first.
    """
    objects = np.arange(len(areas))
    if not by_lesion:
        return objects, objects, np.ones_like(objects)
    names = np.concatenate([_lesions(m) for m in maps])
    _, start, unit = np.unique(names, return_index=True, return_inverse=True)
    unit = start[unit]
    unit[names == ""] = objects[names == ""]
    members = np.lexsort((-areas, unit))
    _, first, count = np.unique(unit[members], return_index=True, return_counts=True)
    return members, first, count


def _lesions(slide: SlideMap) -> NDArray[np.str_]:
    return np.full(len(slide.areas), "") if slide.lesions is None else slide.lesions


def _diameters_mm(maps: Sequence[SlideMap], areas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diameter of each object's lesion, or of the circle of its area."""
    known = [
        np.full(len(m.areas), np.nan) if m.diameters_mm is None else m.diameters_mm for m in maps
    ]
    diameters, circles = np.concatenate(known), 2e-3 * np.sqrt(areas / np.pi)
    found: NDArray[np.float64] = np.where(np.isnan(diameters), circles, diameters)
    return found


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
