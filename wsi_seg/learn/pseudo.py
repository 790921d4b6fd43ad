"""Owns pseudo-labels: sure predictions of slides without truth, written as labels to learn from.

They differ from experts' labels by the source ``pseudo`` of their objects. Slides that a run
holds out never get any, because a network would then be judged by what another one guessed.
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
from wsi_seg.data.source import SOFT
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.learn.split import split_slides
from wsi_seg.masks.objects import measure_objects, write_objects
from wsi_seg.masks.vectorize import vectorize
from wsi_seg.postprocess.label_map import background, label_map
from wsi_seg.progress import Progress
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

# Rows of a prediction outlined at a time.
_STRIP_PX = 1024


@dataclass(frozen=True, slots=True)
class PseudoOptions:
    """What of a prediction is taken for truth.

    Parameters
    ----------
    high, low
        A pixel belongs to its most probable class if its probability is at least ``high``; it is
        background if it is at most ``low``, and ignored (255) in between. Exclusive classes are
        background where all of them together have at most ``low``; each overlapping one is judged
        alone. None is 0.7 and 0.3, or with ``soft``, where both are None, that no pixel is ignored.
    foreground_only
        Tiles of ``patch_px`` without any pixel of a class are ignored instead of background.
    soft
        The probabilities themselves are learned, and not only the ids made of them.
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
        """Probabilities * 255 between which pixels are ignored; None where all are learned."""
        if self.soft and self.low is None and self.high is None:
            return None
        low, high = self._limits
        return round(255 * low), round(255 * high)


@dataclass(frozen=True, slots=True)
class PseudoReport:
    """Name of the label, its objects by slide, and why other slides have none."""

    label: str
    objects: dict[str, int]
    failures: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        return [
            f"{slide}: {count} objects in label {self.label!r}"
            for slide, count in self.objects.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides got no label; all others are done."""
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
    """Write predictions into the slides' stores as the label that a recipe learns from.

    Pseudo-labels of an earlier round are replaced, experts' labels never.

    Parameters
    ----------
    predictions
        Made by inference.
    slides
        The slides' own stores.
    recipe
        Of the run that will learn from them: gives label, classes and the slides held out.
    options
        What is taken for truth.
    fold
        The fold that will learn from them; None guards the slides that any fold holds out.
    progress
        Advanced by slides.

    Returns
    -------
    PseudoReport
        Its `PseudoReport.require_whole` raises if some slides are held out, have an expert's
        label, cannot be read, or have no probabilities.

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
                f"slide {name!r} is held out to judge the run; expected slides that it may learn "
                "from"
            )
        return _write_slide(predictions[name], slides[name], recipe, options)

    batch = run_each(names, work, title="pseudo", progress=progress)
    return PseudoReport(recipe.data.label, batch.results, batch.failures)


def _held_out(recipe: Recipe, fold: int | None) -> set[str]:
    """Names of slides that are held out; none have to have the label yet if none are."""
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
            f"slide {slide.name!r} has label {label!r} from elsewhere, which is not overwritten"
        )
    hard = _Hardened(prediction, recipe, options)
    objects = [
        Annotation(polygon, class_name, PSEUDO) for class_name, polygon in hard.outlines(slide)
    ]
    if not objects:
        # Nothing says that an empty label is a guess, so none is kept, nor that of last round.
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


class _Hardened:
    """A prediction as class ids of the recipe, 255 where it is not sure.

    Where the recipe's classes overlap there is a plane of them for each class, as the last axis.
    """

    def __init__(self, prediction: SlideStore, recipe: Recipe, options: PseudoOptions) -> None:
        self._image = prediction.probabilities
        self._extent = self._image.pyramid.extent
        self._classes = recipe.class_table
        self._channels = _channels(prediction, recipe.class_table)
        self._mode = self._classes.mode
        if self._classes.planes is None:  # one class may be one of several that exclude each other
            self._mode = "exclusive" if self._image.classes.is_exclusive else None
        self._tile = recipe.patch_px if options.foreground_only else 1
        self._options = options
        if options.soft and self._classes.is_exclusive and not self._image.classes.is_exclusive:
            raise ConfigError(
                f"got soft labels of slide {prediction.name!r} from a model whose classes overlap, "
                "for a recipe whose classes are exclusive; leave out --soft, or set classes.mode "
                "to overlapping"
            )

    def rows(self, y: int, height: int) -> NDArray[np.uint8]:
        """Class ids of some rows of the prediction."""
        tile, extent = self._tile, self._extent
        top = y // tile * tile
        bottom = min(-(-(y + height) // tile) * tile, extent.height)
        region = Region(level=0, y=top, x=0, height=bottom - top, width=extent.width)
        ids = self._decided(self._image.read(region)[..., self._channels])
        if self._options.foreground_only:
            _ignore_empty_tiles(ids, tile)
        return ids[y - top : y - top + height]

    def _decided(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class ids of probabilities ``(h, W, C)``."""
        if self._options.doubt is None:
            return label_map(values, self._mode)
        low, high = self._options.doubt
        found: NDArray[np.uint8]
        match self._mode:
            case "overlapping":
                found, best = np.arange(1, values.shape[-1] + 1, dtype=np.uint8), values
                some = best > low
            case "exclusive":
                found, best = label_map(values, "exclusive"), values.max(axis=-1)
                some = background(values) < 255 - low
            case _:
                found, best = (values.argmax(axis=-1) + 1).astype(np.uint8), values.max(axis=-1)
                some = best > low
        ids: NDArray[np.uint8] = found * (best >= high)
        ids[some & (ids == 0)] = IGNORE
        return ids

    def write_soft(self, draft: Draft, slide: SlideStore) -> None:
        """Keep the probabilities in a label, at the size of the prediction."""
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
        """Class ids in a strip of a picture of this size: those at the pixel centres."""
        down = _nearest(np.arange(strip.y, strip.y_end), extent.height, self._extent.height)
        across = _nearest(np.arange(extent.width), extent.width, self._extent.width)
        found = self.rows(int(down[0]), int(down[-1] - down[0]) + 1)
        return found[np.ix_(down - down[0], across)]

    def outlines(self, slide: SlideStore) -> Iterator[tuple[str, shapely.Polygon]]:
        """Class and outline of each object, in level-0 pixels of the slide."""
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
    """Channel of the prediction that belongs to each class of the recipe."""
    found = prediction.probabilities.classes.names
    missing = [name for name in classes.names if name not in found]
    if missing:
        raise ConfigError(
            f"the prediction of slide {prediction.name!r} has classes {', '.join(found)}; "
            f"expected {', '.join(missing)} too"
        )
    return [found.index(name) for name in classes.names]


def _ignore_empty_tiles(ids: NDArray[np.uint8], tile: int) -> None:
    """Ignore, in place, the tiles of a grid that show no pixel of a class."""
    for y in range(0, ids.shape[0], tile):
        for x in range(0, ids.shape[1], tile):
            window = ids[y : y + tile, x : x + tile]
            if not ((window > 0) & (window < IGNORE)).any():
                window[:] = IGNORE


def _nearest(pixels: NDArray[np.int64], length: int, source: int) -> NDArray[np.int64]:
    """Pixels of a source that the centres of these pixels fall into."""
    return np.minimum((pixels * 2 + 1) * source // (2 * length), source - 1)
