"""Owns pseudo-labels: confident predictions on unlabelled slides, written as labels for training.

Their objects have the source ``pseudo``, unlike manual annotations. Held-out slides never get
pseudo-labels, because a network would then be scored against the predictions of another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.annotations import Annotation
from wsi_seg.batch import require_none, run_each
from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.config import Recipe
from wsi_seg.counts import counted
from wsi_seg.data.source import SOFT
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.learn.split import split_slides
from wsi_seg.masks.objects import measure_objects, write_objects
from wsi_seg.masks.vectorize import vectorize
from wsi_seg.postprocess.label_map import background, label_map
from wsi_seg.progress import Progress
from wsi_seg.reading.channels import largest
from wsi_seg.reading.resample import under_centres
from wsi_seg.sampling.maps import PSEUDO, TrainingSlide
from wsi_seg.store import (
    Collection,
    Draft,
    Layout,
    Predictions,
    SlideStore,
    delete_label,
    writing,
)
from wsi_seg.store.names import LABELS

# Rows of a prediction that are vectorised at a time.
_STRIP_PX = 1024


@dataclass(frozen=True, slots=True)
class PseudoOptions:
    """How predictions are converted to labels.

    Parameters
    ----------
    high, low
        A pixel is of its most probable class if the probability is at least ``high``, background if
        it is at most ``low``, and ignored (255) in between. Exclusive classes are background where
        their sum is at most ``low``; overlapping classes are thresholded independently. None is
        0.7 and 0.3; with ``soft``, if both are None, no pixel is ignored.
    foreground_only
        Ignore tiles of ``patch_px`` without foreground instead of using them as background.
    soft
        Use the probabilities as soft labels, in addition to class ids.
    """

    high: float | None = None
    low: float | None = None
    foreground_only: bool = False
    soft: bool = False

    def __post_init__(self) -> None:
        low, high = self._limits
        if not 0 <= low <= high <= 1 or high == 0:
            raise ConfigError(
                f"got probabilities low {low} and high {high}; expected 0 <= low <= high <= 1"
            )

    @property
    def _limits(self) -> tuple[float, float]:
        return 0.3 if self.low is None else self.low, 0.7 if self.high is None else self.high

    @property
    def doubt(self) -> tuple[int, int] | None:
        """Range of probability * 255 in which pixels are ignored; None if no pixel is ignored."""
        if self.soft and self.low is None and self.high is None:
            return None
        low, high = self._limits
        return round(255 * low), round(255 * high)


@dataclass(frozen=True, slots=True)
class PseudoReport:
    """Name of the label, number of its objects by slide, and error messages of failed slides."""

    label: str
    objects: dict[str, int]
    failures: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Summarise the report as lines of text."""
        return [
            f"{slide}: {counted(count, 'object')} in label {self.label!r}"
            for slide, count in self.objects.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides got no label."""
        require_none(self.failures, done=len(self.objects))


def write_pseudo_labels(
    predictions: Predictions,
    slides: Collection,
    recipe: Recipe,
    options: PseudoOptions,
    *,
    fold: int | None = None,
    progress: Progress,
) -> PseudoReport:
    """Write predictions into the slides' stores as the label that a recipe trains on.

    Pseudo-labels of an earlier round are replaced, manual annotations never.

    Parameters
    ----------
    predictions
        Predictions from inference.
    slides
        Collection of the slides.
    recipe
        Recipe of the run that will use them: its label, classes and held-out slides.
    options
        How predictions are converted to labels.
    fold
        Fold that will use them; None protects the slides that any fold holds out.
    progress
        Advanced once per slide.

    Returns
    -------
    PseudoReport
        Its `PseudoReport.require_whole` raises if some slides are held out, have manual
        annotations, cannot be read, or have no probabilities.

    Raises
    ------
    StoreError
        If there are no predictions.
    ConfigError
        If the recipe has no such fold.
    """
    names = predictions.require_names()
    held_out = _held_out(recipe, fold)

    def work(name: str) -> int:
        if name in held_out:
            raise ConfigError(
                f"slide {name!r} is held out for validation of the run; expected slides that it "
                "may train on"
            )
        return _write_slide(predictions[name], slides[name], recipe, options)

    batch = run_each(names, work, title="pseudo", progress=progress)
    return PseudoReport(recipe.data.label, batch.results, batch.failures)


def _held_out(recipe: Recipe, fold: int | None) -> set[str]:
    """Return the names of held-out slides; without any, no slide needs to have the label yet."""
    folds = recipe.data.folds or 1
    if fold is not None and fold not in range(folds):
        raise ConfigError(f"got fold {fold}; the recipe has {folds}, counted from 0")
    if not (recipe.data.folds or recipe.data.validation):
        return set()
    splits = split_slides(recipe)
    chosen = splits if fold is None else splits[fold : fold + 1]
    return {store.name for split in chosen for store in split.validation}


def _write_slide(
    prediction: SlideStore, slide: SlideStore, recipe: Recipe, options: PseudoOptions
) -> int:
    label = recipe.data.label
    if label in slide.label_names() and not TrainingSlide.of(slide, label).is_pseudo:
        raise StoreError(
            f"slide {slide.name!r} has a manual label {label!r}, which is not overwritten; set "
            "data.label to another name"
        )
    hard = _HardLabels(prediction, recipe, options)
    objects = [
        Annotation(polygon, class_name, PSEUDO) for class_name, polygon in hard.outlines(slide)
    ]
    if not objects:
        # An empty label cannot be marked as a pseudo-label, so the label is deleted.
        delete_label(slide.path, label)
        return 0
    layout = Layout.of(
        slide.pyramid.extents,
        channels=recipe.class_table.planes,
        mpp=slide.pyramid.mpp,
        coarser=False,
    )
    about = {"kind": "label", "classes": recipe.class_table.to_json()}
    with writing(slide.path / LABELS / label, layout, about) as draft:
        for level, extent in enumerate(slide.pyramid.extents):
            for strip in draft.strips(level):
                drawn = hard.at(extent, strip)
                if drawn.any():
                    draft.write(strip, drawn)
        if options.soft:
            hard.write_soft(draft, slide)
        write_objects(draft.path, measure_objects(objects, slide.pyramid.mpp))
    return len(objects)


class _HardLabels:
    """Class ids of the recipe from a prediction, 255 where it is not confident.

    Overlapping classes have a plane each, as the last axis.
    """

    def __init__(self, prediction: SlideStore, recipe: Recipe, options: PseudoOptions) -> None:
        self._image = prediction.probabilities
        self._extent = self._image.pyramid.extent
        self._classes = recipe.class_table
        self._channels = _channels(prediction, recipe.class_table)
        self._mode = self._classes.mode
        if self._classes.planes is None:  # a single class may be one of several exclusive ones
            self._mode = "exclusive" if self._image.classes.is_exclusive else None
        self._tile = recipe.patch_px if options.foreground_only else 1
        self._options = options
        if options.soft and self._classes.is_exclusive and not self._image.classes.is_exclusive:
            raise ConfigError(
                f"got soft labels of slide {prediction.name!r} from a model with overlapping "
                "classes, but the recipe has exclusive classes; leave out --soft, or set "
                "classes.mode to overlapping"
            )

    def rows(self, y: int, height: int) -> NDArray[np.uint8]:
        """Return the class ids of some rows of the prediction, ``(height, W)`` or with planes."""
        tile, extent = self._tile, self._extent
        top = y // tile * tile
        bottom = min(-(-(y + height) // tile) * tile, extent.height)
        region = Region(level=0, y=top, x=0, height=bottom - top, width=extent.width)
        ids = self._threshold(self._image.read(region)[..., self._channels])
        if self._options.foreground_only:
            _ignore_empty_tiles(ids, tile)
        return ids[y - top : y - top + height]

    def _threshold(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert probabilities ``(h, W, C)`` to class ids."""
        if self._options.doubt is None:
            return label_map(values, self._mode)
        low, high = self._options.doubt
        found: NDArray[np.uint8]
        match self._mode:
            case "overlapping":
                found, best = np.arange(1, values.shape[-1] + 1, dtype=np.uint8), values
                some = best > low
            case "exclusive":
                found, best = label_map(values, "exclusive"), largest(values)
                some = background(values) < 255 - low
            case _:
                found, best = (values.argmax(axis=-1) + 1).astype(np.uint8), largest(values)
                some = best > low
        ids: NDArray[np.uint8] = found * (best >= high)
        ids[some & (ids == 0)] = IGNORE
        return ids

    def write_soft(self, draft: Draft, slide: SlideStore) -> None:
        """Write the probabilities into a label, at the resolution of the prediction."""
        layout = Layout.of(
            [self._extent],
            channels=len(self._channels),
            mpp=slide.pyramid.mpp,
            downsample=slide.pyramid.extent.width / self._extent.width,
        )
        about = {"kind": "probabilities", "classes": self._classes.to_json()}
        soft = draft.inside(SOFT, layout, about)
        for strip in soft.strips():
            soft.write(strip, self._image.read(strip)[..., self._channels])

    def at(self, extent: Extent, strip: Region) -> NDArray[np.uint8]:
        """Return the class ids at the pixel centres of a strip of an image of this extent."""
        full = self._extent
        down = under_centres(strip.y, strip.height, full=full.height, small=extent.height)
        across = under_centres(0, extent.width, full=full.width, small=extent.width)
        found = self.rows(int(down[0]), int(down[-1] - down[0]) + 1)
        return found[np.ix_(down - down[0], across)]

    def outlines(self, slide: SlideStore) -> Iterator[tuple[str, shapely.Polygon]]:
        """Yield class and outline of each object, x and y in level-0 pixels of the slide."""
        full = slide.pyramid.extent
        scale = np.array([full.width / self._extent.width, full.height / self._extent.height])
        names = self._classes.names
        for plane in range(self._classes.planes or 1):
            for value, polygon in vectorize(self._strips(plane)):
                yield names[value - 1], shapely.transform(polygon, lambda xy: xy * scale)

    def _strips(self, plane: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for strip in self._extent.strips(_STRIP_PX):
            ids = self.rows(strip.y, strip.height)
            alone = ids if self._classes.planes is None else ids[..., plane]
            yield strip.y, np.where(alone == IGNORE, 0, alone).astype(np.uint8)


def _channels(prediction: SlideStore, classes: ClassTable) -> Sequence[int]:
    """Return the channel of the prediction for each class of the recipe."""
    found = prediction.probabilities.classes.names
    missing = [name for name in classes.names if name not in found]
    if missing:
        raise ConfigError(
            f"the prediction of slide {prediction.name!r} has classes {', '.join(found)}; "
            f"expected {', '.join(missing)} too, as in the recipe"
        )
    return [found.index(name) for name in classes.names]


def _ignore_empty_tiles(ids: NDArray[np.uint8], tile: int) -> None:
    """Set the tiles of a grid without foreground to ignore, in place."""
    for y in range(0, ids.shape[0], tile):
        for x in range(0, ids.shape[1], tile):
            window = ids[y : y + tile, x : x + tile]
            if not ((window > 0) & (window < IGNORE)).any():
                window[:] = IGNORE
