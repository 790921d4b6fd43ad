"""Owns the round-robin order of objects and lesions, with repeats and groups."""

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
    """Return how often objects of these diameters are drawn per pass, ``(n,)`` int64."""
    repeats = np.array([*sizes.repeats, 1 if sizes.above == "keep" else 0])
    found: Indices = repeats[np.searchsorted(np.array(sizes.edges_mm), diameters_mm, side="right")]
    return found


def stratum_of(ratios: NDArray[np.float64], strata: StrataConfig) -> Indices:
    """Return the bin of objects that cover these fractions of a patch, ``(n,)`` int64."""
    found: Indices = np.minimum(np.rint(ratios * strata.scale), strata.bins).astype(np.int64)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """Round-robin over units: objects, or lesions whose slices are the objects.

    Parameters
    ----------
    members
        Indices of objects, sorted by unit, ``(objects,)`` int64.
    first, count
        First position in ``members`` and number of objects of each unit, ``(units,)`` int64.
    groups
        Indices of the units of each group; repeated units occur several times. No group is empty.
    shares
        Fraction of draws of each group; the sum is 1, or 0 if there are no groups.
    """

    members: Indices
    first: Indices
    count: Indices
    groups: tuple[Indices, ...]
    shares: tuple[float, ...]

    def __len__(self) -> int:
        """Return the number of draws per pass."""
        return sum(len(group) for group in self.groups)

    @property
    def chances(self) -> NDArray[np.float64]:
        """Probability of each object in a draw, ``(objects,)`` float64."""
        of_unit = np.zeros(len(self.first))
        for group, share in zip(self.groups, self.shares, strict=True):
            np.add.at(of_unit, group, share / len(group))
        chances = np.zeros(len(self.members))
        chances[self.members] = np.repeat(of_unit / self.count, self.count)
        return chances

    def draw(self, count: int, *, seed: int, epoch: int) -> Indices:
        """Draw the objects of an epoch.

        Each group gets its share of the draws (up to rounding), and goes through all its units in a
        new random order before repeating any. Within a unit, an object is drawn at random.

        Returns
        -------
        NDArray[np.int64]
            Indices of objects, ``(count,)``, in the order of the groups.
        """
        draws = generator(seed, epoch, stream=Stream.OBJECTS)
        # Random, so that rounding does not always favour the same group.
        order = draws.permutation(len(self.groups))
        ends = np.rint(np.cumsum(np.array(self.shares)[order]) * count).astype(np.int64)
        counts = np.empty(len(self.groups), dtype=np.int64)
        counts[order] = np.diff(ends, prepend=0)
        picked = [np.empty(0, dtype=np.int64)]
        for group, number in zip(self.groups, counts.tolist(), strict=True):
            rounds = np.tile(group, (-(-number // len(group)), 1))
            picked.append(draws.permuted(rounds, axis=1).ravel()[:number])
        units = np.concatenate(picked)
        place = (draws.random(len(units)) * self.count[units]).astype(np.int64)
        found: Indices = self.members[self.first[units] + place]
        return found


def turns_of(
    maps: Sequence[SlideMap], sampling: SamplingConfig, patch_px2: NDArray[np.float64]
) -> Turns:
    """Group objects or lesions, with the frequency of each group.

    Area, class and source of a lesion are those of its largest slice.

    Parameters
    ----------
    maps
        One per slide; objects are numbered through all maps.
    sampling
        Sampling section of the recipe: sizes, strata, balance and sources.
    patch_px2
        Area of a patch in level-0 px² of each slide, ``(maps,)``.

    Raises
    ------
    ConfigError
        If a source in ``sampling.sources`` has no objects.
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
    """Sort objects by unit: their indices, and first position and size of each unit.

    Units are in the order of their first objects; the largest object of each unit comes first.
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
    """Return the diameter of each object's lesion, or of the circle with its area."""
    known = [
        np.full(len(m.areas), np.nan) if m.diameters_mm is None else m.diameters_mm for m in maps
    ]
    diameters, circles = np.concatenate(known), 2e-3 * np.sqrt(areas / np.pi)
    found: NDArray[np.float64] = np.where(np.isnan(diameters), circles, diameters)
    return found


def _source_shares(groups: Sequence[str], shares: Mapping[str, float]) -> tuple[float, ...]:
    """Divide the share of each source equally among its groups."""
    absent = [name for name in shares if name not in groups]
    if absent:
        raise ConfigError(
            f"sampling.sources names {', '.join(absent)}, but the objects to draw are from "
            f"{', '.join(sorted(set(groups))) or 'other sources'}; expected sources with objects"
        )
    total = sum(shares.values())
    return tuple(shares[name] / total / groups.count(name) for name in groups)
