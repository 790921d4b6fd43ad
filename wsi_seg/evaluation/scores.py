"""Owns the scores and their report: of pixels, and optionally of tiles, objects and outlines.

Scores over several slides are computed from counts unless their name contains "mean".
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wsi_seg.batch import elsewhere_lines, require_none
from wsi_seg.counts import counted
from wsi_seg.evaluation.boundary import Distances
from wsi_seg.evaluation.calibration import Reliability
from wsi_seg.evaluation.intervals import dice_of, interval, mean_of
from wsi_seg.evaluation.matching import ObjectCounts
from wsi_seg.evaluation.pairing import unscored_lines
from wsi_seg.notebook import lines_html
from wsi_seg.reading.slices import case_of, volume_of


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels of one class: found and true, found but false, true but missed."""

    tp: int
    fp: int
    fn: int

    @property
    def dice(self) -> float:
        """``2 tp / (2 tp + fp + fn)``; 1 if prediction and truth have no pixels."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def iou(self) -> float:
        """``tp / (tp + fp + fn)``; 1 if prediction and truth have no pixels."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


@dataclass(frozen=True, slots=True)
class Measures:
    """What to measure besides pixels.

    Parameters
    ----------
    objects
        Whether to match objects; see `matching`.
    tolerance_um
        Tolerance of surface Dice in um (pixels of the prediction if mpp is unknown); None does not
        measure distances between outlines.
    tile_px
        Side of tiles to score in pixels of the prediction; None does not score tiles.
    calibration
        Whether to measure calibration, if probabilities were saved.

    Examples
    --------
    >>> pixels_only, with_objects = Measures(), Measures(objects=True, tolerance_um=2.0)
    """

    objects: bool = False
    tolerance_um: float | None = None
    tile_px: int | None = None
    calibration: bool = False


@dataclass(frozen=True, slots=True)
class SlideScore:
    """Scores of one class on one slide.

    Parameters
    ----------
    slide, class_name
        Names of the slide and the class.
    counts
        Pixel counts.
    objects, distances, tile_dices
        Measures that were requested by `Measures`; the last are the Dice of each tile that contains
        the class.
    mpp
        um per pixel of the prediction; None if unknown.
    """

    slide: str
    class_name: str
    counts: Counts
    objects: ObjectCounts | None = None
    distances: Distances | None = None
    tile_dices: tuple[float, ...] | None = None
    mpp: float | None = None

    def joined(self, other: "SlideScore") -> "SlideScore":
        """Pool the scores of two slices of a volume, under the name of this one."""
        objects, distances, tiles = self.objects, self.distances, self.tile_dices
        if objects is not None and other.objects is not None:
            objects = objects + other.objects
        if distances is not None and other.distances is not None:
            distances = distances + other.distances
        if tiles is not None and other.tile_dices is not None:
            tiles = (*tiles, *other.tile_dices)
        return replace(
            self,
            counts=self.counts + other.counts,
            objects=objects,
            distances=distances,
            tile_dices=tiles,
        )

    def figures(self, tolerance_um: float | None) -> dict[str, object]:
        """Return all scores by name."""
        c = self.counts
        row: dict[str, object] = {"dice": c.dice, "iou": c.iou, "tp": c.tp, "fp": c.fp, "fn": c.fn}
        if self.tile_dices is not None:
            row["tile_dice"] = statistics.fmean(self.tile_dices) if self.tile_dices else None
        if self.objects is not None:
            row |= _object_figures(self.objects)
        if self.distances is not None and tolerance_um is not None:
            row[f"hd95_{self.unit}"] = self.hausdorff
            row["surface_dice"] = self.distances.surface_dice(self.px(tolerance_um))
        return row

    @property
    def unit(self) -> str:
        """Unit of lengths: ``um``, or ``px`` of the prediction."""
        return "px" if self.mpp is None else "um"

    @property
    def hausdorff(self) -> float | None:
        """Hausdorff 95 in `unit`; None if only one outline is empty, or beyond the reach."""
        found = None if self.distances is None else self.distances.hausdorff()
        return None if found is None else found * (self.mpp or 1.0)

    def px(self, length: float) -> float:
        """Convert a length in `unit` to pixels of the prediction."""
        return length / (self.mpp or 1.0)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a collection of predictions.

    Parameters
    ----------
    slides
        Scores of each slide and class.
    tolerance_um
        See `Measures`.
    calibration
        Reliability by class; None if it was not measured.
    unscored
        Names of slides without the ground-truth label.
    failures
        Errors of slides that could not be scored, by name.
    warnings
        Tiles that inference could not read, and calibration that was not measured.
    maps
        Names of labels that were added to predictions, by slide.
    elsewhere
        Number of slides of other processes, which are not included.
    inside
        Part of the slides that was scored; None for whole slides.
    """

    slides: tuple[SlideScore, ...]
    tolerance_um: float | None = None
    calibration: Mapping[str, Reliability] | None = None
    unscored: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    maps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: int = 0
    inside: str | None = None

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the scored slides."""
        return tuple(dict.fromkeys(score.slide for score in self.slides))

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of a table: slide, class, Dice, IoU, F1 of objects."""
        return [
            (
                s.slide,
                s.class_name,
                f"{s.counts.dice:.4f}",
                f"{s.counts.iou:.4f}",
                "" if s.objects is None else f"{s.objects.f1:.3f}",
            )
            for s in self.slides
        ]

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides could not be scored."""
        require_none(self.failures, done=len(self.scored))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in table order."""
        return tuple(dict.fromkeys(score.class_name for score in self.slides))

    @property
    def cases(self) -> tuple[SlideScore, ...]:
        """Scores of independent cases: slides, or volumes with all their slices pooled.

        Objects are those of slices; `wsi-seg ct froc` scores those of volumes.
        """
        found: dict[tuple[str, str], SlideScore] = {}
        for score in self.slides:
            case = case_of(score.slide)
            before = found.get((case, score.class_name))
            found[case, score.class_name] = (
                replace(score, slide=case) if before is None else before.joined(score)
            )
        return tuple(found.values())

    @property
    def unit(self) -> str:
        """Name of a case: ``slide`` or ``volume``."""
        return "volume" if any(volume_of(score.slide) for score in self.slides) else "slide"

    def pooled(self, class_name: str) -> Counts:
        """Sum the counts of the class ``class_name`` over all slides."""
        total = Counts(0, 0, 0)
        for score in self.slides:
            if score.class_name == class_name:
                total += score.counts
        return total

    def slide_dice(self, class_name: str) -> tuple[float, float]:
        """Return the mean and standard deviation of the Dice of ``class_name`` over cases."""
        values = [score.counts.dice for score in self.of(class_name)]
        return statistics.fmean(values), statistics.pstdev(values)

    @property
    def mean_slide_dice(self) -> float:
        """Mean Dice over cases and classes."""
        return statistics.fmean(score.counts.dice for score in self.cases)

    def of(self, class_name: str) -> list[SlideScore]:
        """Return the scores of ``class_name`` by case."""
        return [score for score in self.cases if score.class_name == class_name]

    def lines(self) -> list[str]:
        """Report as lines of text."""
        lines = [] if self.inside is None else [f"only inside {self.inside}:"]
        for name in self.class_names:
            pooled = self.pooled(name)
            mean, spread = self.slide_dice(name)
            lines.append(
                f"{name}: Dice {mean:.4f} ± {spread:.4f} per {self.unit}, "
                f"{pooled.dice:.4f} pooled; IoU {pooled.iou:.4f} pooled"
            )
            more = class_figures(self.of(name), self.tolerance_um)
            lines += [f"  {line}" for line in class_lines(more, self.unit)]
            if self.calibration is not None and name in self.calibration:
                lines.append(f"  calibration error {self.calibration[name].ece:.4f}")
        lines += [
            f"labels {', '.join(names)} added to {counted(count, 'prediction')}"
            for names, count in Counter(self.maps.values()).items()
        ]
        lines += [*self.warnings, *unscored_lines(self.unscored)]
        return lines + elsewhere_lines(self.elsewhere)

    def _repr_html_(self) -> str:
        return lines_html(self.lines())

    def to_json(self) -> dict[str, object]:
        """Report as JSON values."""
        figures: dict[str, object] = {
            "slides": [
                {"slide": s.slide, "class": s.class_name} | s.figures(self.tolerance_um)
                for s in self.slides
            ],
            "classes": {
                name: {
                    "pooled_dice": self.pooled(name).dice,
                    "pooled_iou": self.pooled(name).iou,
                    "slide_dice_mean": self.slide_dice(name)[0],
                    "slide_dice_sd": self.slide_dice(name)[1],
                }
                | class_figures(self.of(name), self.tolerance_um)
                for name in self.class_names
            },
        }
        if self.inside is not None:
            figures["inside"] = self.inside
        if self.slides:
            figures["mean_slide_dice"] = self.mean_slide_dice
        figures |= {
            "unscored": list(self.unscored),
            "failures": dict(self.failures),
            "warnings": list(self.warnings),
        }
        if self.calibration is not None:
            of_all = {name: one.to_json() for name, one in self.calibration.items()}
            figures["calibration"] = of_all
        if self.unit == "volume":
            volumes = [
                {"volume": s.slide, "class": s.class_name} | s.figures(self.tolerance_um)
                for s in self.cases
            ]
            figures = {"volumes": volumes, **figures}
        return figures


def _object_figures(objects: ObjectCounts) -> dict[str, object]:
    return {
        "objects_found": objects.found,
        "objects_true": objects.true,
        "object_precision": objects.precision,
        "object_recall": objects.recall,
        "object_f1": objects.f1,
        "object_pq": objects.pq,
        "object_ap": objects.ap,
    }


def class_figures(scores: Sequence[SlideScore], tolerance_um: float | None) -> dict[str, object]:
    """Compute the scores of one class over all slides, in addition to Dice and IoU."""
    px = np.array([(s.counts.tp, s.counts.tp + s.counts.fp, s.counts.tp + s.counts.fn)
                   for s in scores], dtype=np.float64)  # fmt: skip
    dice = np.array([[s.counts.dice] for s in scores])
    row = _ends("slide_dice_mean", interval(dice, mean_of))
    row |= _ends("pooled_dice", interval(px, dice_of))
    tiles = [value for s in scores for value in s.tile_dices or ()]
    if tiles:
        row["tile_dice_mean"] = statistics.fmean(tiles)
    objects = [s.objects for s in scores if s.objects is not None]
    if objects:
        row |= _object_figures(sum(objects, ObjectCounts((), 0, 0)))
        counts = np.array([(len(o.ious), o.found, o.true) for o in objects], dtype=np.float64)
        row |= _ends("object_f1", interval(counts, dice_of))
    if tolerance_um is not None:
        row |= _outline_figures(scores, tolerance_um)
    return row


def _outline_figures(scores: Sequence[SlideScore], tolerance_um: float) -> dict[str, object]:
    """Average distances over the slides that have the same unit as the first one."""
    unit = scores[0].unit
    same = [s for s in scores if s.unit == unit and s.distances is not None]
    far = [s.hausdorff for s in same]
    near = [value for value in far if value is not None]
    surfaces = [
        s.distances.surface_dice(s.px(tolerance_um)) for s in same if s.distances is not None
    ]
    return {
        f"hd95_mean_{unit}": statistics.fmean(near) if near else None,
        "hd95_undefined": len(far) - len(near),
        f"tolerance_{unit}": tolerance_um,
        "surface_dice_mean": statistics.fmean(surfaces) if surfaces else None,
    }


def _ends(name: str, found: tuple[float, float] | None) -> dict[str, object]:
    return {} if found is None else {f"{name}_low": found[0], f"{name}_high": found[1]}


def class_lines(row: Mapping[str, object], unit: str = "slide") -> list[str]:
    """Format the result of `class_figures`, whose cases are slides or volumes."""
    lines = []
    if "slide_dice_mean_low" in row:
        lines.append(
            f"95 % intervals over {unit}s: {_range(row, 'slide_dice_mean')} per {unit}, "
            f"{_range(row, 'pooled_dice')} pooled"
        )
    if "object_f1" in row:
        lines.append(
            f"objects: {row['objects_found']} found, {row['objects_true']} true; precision "
            f"{row['object_precision']:.3f}, recall {row['object_recall']:.3f}, F1 "
            f"{row['object_f1']:.3f}, PQ {row['object_pq']:.3f}, AP {row['object_ap']:.3f}"
        )
    length = "um" if "tolerance_um" in row else "px"
    if f"tolerance_{length}" in row and row["surface_dice_mean"] is not None:
        far = row[f"hd95_mean_{length}"]
        lines.append(
            f"outlines: surface Dice {row['surface_dice_mean']:.3f} within "
            f"{row[f'tolerance_{length}']:g} {length}, Hausdorff 95 "
            f"{'undefined' if far is None else f'{far:.1f} {length}'}, means over {unit}s"
        )
    if "tile_dice_mean" in row:
        lines.append(f"Dice {row['tile_dice_mean']:.4f}, mean over tiles that show the class")
    return lines


def _range(row: Mapping[str, object], name: str) -> str:
    return f"{row[f'{name}_low']:.4f} to {row[f'{name}_high']:.4f}"
