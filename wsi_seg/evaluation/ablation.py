"""Owns the ablation of ensembles: scores with all members, without each, and of each alone.

Members are stored predictions of the same slides, which are combined per pixel as in inference.
Memory depends on the width of a slide and the number of members.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Mode
from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.evaluation.intervals import dice_of, interval
from wsi_seg.evaluation.maps import write_variance
from wsi_seg.evaluation.pairing import (
    compared,
    read_together,
    require_alike,
    require_same_classes,
    require_same_slide,
)
from wsi_seg.geometry import Extent, Region
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.postprocess.strips import STRIP_PX
from wsi_seg.predict.combine import combine
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Collection, Multiscale, Predictions, SlideStore

# Rows combined at a time, because sums need eight bytes per pixel and class.
_ROWS = 64

# Correct, predicted and true pixels ``(..., 3)`` by combination, slide and class.
_Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contribution:
    """Contribution of one member to one class; Dice is pooled over slides.

    Parameters
    ----------
    member, class_name
        Names of the member and the class.
    alone
        Dice of the member alone.
    without
        Dice of the ensemble without the member.
    gain
        Dice of the whole ensemble minus ``without``; if negative, the member does harm.
    low, high
        95 % interval of ``gain`` over slides; None for fewer than two slides.
    """

    member: str
    class_name: str
    alone: float
    without: float
    gain: float
    low: float | None
    high: float | None

    @property
    def harms(self) -> bool:
        """Whether the gain is negative, by its interval if there is one."""
        return (self.gain if self.high is None else self.high) < 0


@dataclass(frozen=True, slots=True)
class AblationReport:
    """Report of an ablation.

    Parameters
    ----------
    mode, weights
        How members were combined.
    slides
        Number of slides.
    dice
        Dice of the whole ensemble by class, pooled over slides.
    contributions
        One per class and member.
    """

    mode: Mode
    weights: tuple[float, ...]
    slides: int
    dice: dict[str, float]
    contributions: tuple[Contribution, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table: class, member, alone, without, gain, interval."""
        return [
            (
                one.class_name,
                one.member,
                f"{one.alone:.4f}",
                f"{one.without:.4f}",
                f"{one.gain:+.4f}",
                "" if one.low is None else f"{one.low:+.4f} {one.high:+.4f}",
            )
            for one in self.contributions
        ]

    def lines(self) -> list[str]:
        """Report as lines of text."""
        about = f"{counted(self.slides, 'slide')}, {len(self.weights)} members ({self.mode})"
        lines = [f"{name}: Dice {dice:.4f} pooled over {about}" for name, dice in self.dice.items()]
        spare = sorted({one.member for one in self.contributions if one.harms})
        return lines + [f"the ensemble is better without {member}" for member in spare]

    def to_json(self) -> dict[str, object]:
        """Report as JSON values."""
        return asdict(self)


def ablate_members(
    members: Sequence[Predictions],
    truth: Collection,
    *,
    label: str,
    mode: Mode = "mean",
    weights: Sequence[float] | None = None,
    variance: Predictions | None = None,
    progress: Progress,
) -> AblationReport:
    """Score an ensemble with all members, without each member, and each member alone.

    Parameters
    ----------
    members
        Predictions of the same slides at the same level with the same classes.
    truth
        Stores of the slides.
    label
        Name of the ground-truth label.
    mode
        See `predict.combine.combine`.
    weights
        Positive weight of each member; None weights all equally.
    variance
        Predictions of the whole ensemble, to which the label ``variance`` is added: the
        disagreement of the members.
    progress
        Advanced by slides.

    Raises
    ------
    ConfigError
        If there are fewer than two members, or the weights do not match the members or the mode.
    StoreError
        If the predictions are of different slides, do not match each other or the truth, or have
        no probabilities.
    """
    weights = _checked(members, mode, weights)
    names = _slides_of(members)
    combinations = _combinations(len(members))
    parts: list[_Counts] = []
    classes = ClassTable(())
    progress.start("ensemble", len(names), "slides")
    for name in names:
        if name not in truth:
            raise StoreError(f"{truth.path} has no slide {name!r}, which was predicted")
        stores = [collection[name] for collection in members]
        classes = require_alike(stores)
        for store in stores:
            require_same_slide(store, truth[name])
        truths = [_Truth.of(*pair, label) for pair in compared(stores[0], truth[name], label)]
        rows = np.zeros((len(combinations), len(classes), 3))
        for values, drawn in _blocks([store.probabilities for store in stores], truths):
            for row, chosen in zip(rows, combinations, strict=True):
                some = [values[n] for n in chosen]
                together = combine(
                    some, [weights[n] for n in chosen], mode, exclusive=classes.is_exclusive
                )
                found = label_map(together, classes.mode)
                row += _counts(found, drawn, len(classes))
        parts.append(rows)
        if variance is not None:
            write_variance(variance[name], stores)
        progress.advance(1)
    progress.finish()
    titles = _titles(members)
    counts = np.stack(parts, axis=1)
    everything = {entry.name: _dice(counts[0, :, n]) for n, entry in enumerate(classes)}
    contributions = [
        _contribution(title, entry.name, counts[:, :, n], member)
        for n, entry in enumerate(classes)
        for member, title in enumerate(titles)
    ]
    return AblationReport(mode, tuple(weights), len(names), everything, tuple(contributions))


def _checked(
    members: Sequence[Predictions], mode: Mode, weights: Sequence[float] | None
) -> Sequence[float]:
    if len(members) < 2:
        raise ConfigError(f"got {len(members)} prediction; expected at least two members")
    weights = [1.0] * len(members) if weights is None else weights
    if len(weights) != len(members) or min(weights) <= 0:
        raise ConfigError(
            f"got weights {list(weights)} for {len(members)} members; expected a positive weight "
            "for each"
        )
    if mode == "mean" and len(set(weights)) > 1:
        raise ConfigError(f"got mode mean and the weights {list(weights)}; expected mode weighted")
    return weights


def _slides_of(members: Sequence[Predictions]) -> tuple[str, ...]:
    first = members[0]
    for other in members[1:]:
        for name in sorted(set(first.names()) ^ set(other.names())):
            here, there = (first, other) if name in first else (other, first)
            raise StoreError(
                f"{here.path} has a prediction of slide {name!r}, {there.path} has none; expected "
                "predictions of the same slides"
            )
    return first.require_names()


def _combinations(count: int) -> list[tuple[int, ...]]:
    """List the combinations of members: all, all but one, and each alone."""
    every = tuple(range(count))
    without = [tuple(n for n in every if n != left) for left in every]
    return [every, *without, *((n,) for n in every)]


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """Ground truth in the ids of a prediction's classes, or of one of them if classes overlap."""

    label: Multiscale
    recode: NDArray[np.uint8]

    @classmethod
    def of(cls, found: SlideStore, slide: SlideStore, label: str) -> "_Truth":
        true, classes = slide.label(label), found.image.classes
        require_same_classes(slide.name, classes, true.classes, label)
        return cls(true, classes.recoding(true.classes))

    def read(self, extent: Extent, strip: Region) -> NDArray[np.uint8]:
        size = {"height": strip.height, "width": strip.width}
        return self.recode[read_label(self.label, extent, strip.y, 0, **size)]


def _blocks(
    images: Sequence[Multiscale], truths: Sequence[_Truth]
) -> Iterator[tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]]:
    """Yield a few rows of all predictions, and of the truth in the shape of a `label_map`."""
    extent, planes = images[0].pyramid.extent, images[0].classes.planes
    for strip in extent.strips(STRIP_PX):
        values = read_together(images, strip)
        drawn = truths[0].read(extent, strip)
        if planes is not None:
            each = np.stack([truth.read(extent, strip) for truth in truths], axis=-1)
            own = np.arange(1, planes + 1, dtype=np.uint8)
            drawn = np.where(each == IGNORE, IGNORE, each * own).astype(np.uint8)
        for row in range(0, strip.height, _ROWS):
            rows = slice(row, row + _ROWS)
            yield [value[rows] for value in values], drawn[rows]


def _counts(found: NDArray[np.uint8], true: NDArray[np.uint8], classes: int) -> _Counts:
    valid = true != IGNORE
    found, true = found[valid], true[valid]
    columns = (found[found == true], found, true)
    counts = [np.bincount(column, minlength=classes + 1)[1:] for column in columns]
    return np.stack(counts, axis=1).astype(np.float64)


def _dice(slides: _Counts) -> float:
    return float(dice_of(slides[None])[0])


def _contribution(title: str, class_name: str, counts: _Counts, member: int) -> Contribution:
    """Compute the contribution of a member from the counts ``(combinations, slides, 3)``."""
    members = len(counts) // 2
    everything, without, alone = counts[0], counts[1 + member], counts[1 + members + member]
    ends = interval(np.concatenate([everything, without], axis=1), _gain)
    return Contribution(
        member=title,
        class_name=class_name,
        alone=_dice(alone),
        without=_dice(without),
        gain=_dice(everything) - _dice(without),
        low=None if ends is None else ends[0],
        high=None if ends is None else ends[1],
    )


def _gain(rows: _Counts) -> NDArray[np.float64]:
    gain: NDArray[np.float64] = dice_of(rows[..., :3]) - dice_of(rows[..., 3:])
    return gain


def _titles(members: Sequence[Predictions]) -> list[str]:
    """Return the file names of collections if they are unique, else their paths."""
    short = [str(collection.path.name) for collection in members]
    return short if len(set(short)) == len(short) else [str(one.path) for one in members]
