"""Owns pairing predictions with the truth, in strips of the prediction's class ids.

It also checks that the two can be compared, with errors that name both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.counts import counted
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.postprocess.strips import Source
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore, store_digest
from wsi_seg.store.class_view import class_view

# Maximum number of slides without truth to list by name.
_NAMED = 10


@dataclass(frozen=True, slots=True, eq=False)
class PredictionTruthStrip:
    """Rows of a prediction and of the truth.

    Parameters
    ----------
    y
        Index of the first row.
    found, true
        ``(h, W)`` uint8 class ids of the prediction's table; 255 in ``true`` means ignore.
    probability
        ``(h, W)`` uint8 probability of the predicted class, value / 255.
    """

    y: int
    found: NDArray[np.uint8]
    probability: NDArray[np.uint8]
    true: NDArray[np.uint8]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``(h, W)`` pixels that are not ignored."""
        counted: NDArray[np.bool_] = self.true != IGNORE
        return counted


def lack_of_truth(slide: SlideStore, label: str) -> str | None:
    """Return the error for a label that a slide lacks; None if the slide has it."""
    names = slide.label_names()
    if label in names:
        return None
    return (
        f"slide {slide.name}: got label {label!r}; it has: {', '.join(names) or 'none'}; make it "
        "with `wsi-seg annotate`"
    )


def all_ignored(slide: SlideStore, label: str) -> str:
    """Return the error for a slide that has no pixel to score."""
    return f"slide {slide.name}: all pixels of {label!r} are ignored"


def unscored_lines(slides: Sequence[str]) -> list[str]:
    """List the slides that were not scored because they have no truth, in at most one line."""
    if not slides:
        return []
    named = ", ".join(slides[:_NAMED])
    more = f" and {len(slides) - _NAMED} more" if len(slides) > _NAMED else ""
    return [f"{counted(len(slides), 'slide')} without truth not scored: {named}{more}"]


def require_same_slide(prediction: SlideStore, truth: SlideStore) -> None:
    """Require that a prediction belongs to a slide, and has the level that it states.

    Raises
    ------
    StoreError
        If the prediction is of another slide or level, or the slide has changed since.
    """
    made = prediction.prediction
    if made.slide is not None and made.slide != truth.name:
        raise StoreError(
            f"the prediction {prediction.name!r} was made for slide {made.slide!r}, the truth is "
            f"slide {truth.name!r}; expected the same slide"
        )
    if made.slide_digest and made.slide_digest != store_digest(truth.path):
        raise StoreError(
            f"slide {truth.name!r} has changed since it was predicted; expected the store that "
            "the prediction was made from; predict it again with `wsi-seg infer --overwrite`"
        )
    full, here = truth.pyramid.extent, prediction.pyramid.extent
    scale_y, scale_x = full.height / here.height, full.width / here.width
    # Rounding changes a side by at most one pixel of either image.
    if abs(scale_y - scale_x) > (scale_y + 1) / here.height + (scale_x + 1) / here.width:
        raise StoreError(
            f"slide {truth.name!r} has {full}, its prediction {here}: these are not the same "
            "slide; expected sides in the same proportion"
        )
    stated = prediction.image.attributes.get("downsample")
    tolerance = 2 * (scale_y + 1) / here.height + 1e-6
    if isinstance(stated, int | float) and abs(scale_y - stated) > tolerance:
        raise StoreError(
            f"slide {truth.name!r}: its prediction states a downsample of {stated:g}, but {here} "
            f"is {full} downsampled by {scale_y:.4g}; expected the same level"
        )


def require_alike(stores: Sequence[SlideStore]) -> ClassTable:
    """Require predictions of one slide that can be combined, and return their classes.

    Raises
    ------
    StoreError
        If they differ in slide, size, mpp or classes.
    """
    first = stores[0]
    for other in stores[1:]:
        for title, ours, theirs in (
            ("slide", first.attributes.get("slide"), other.attributes.get("slide")),
            ("size", first.pyramid.extent, other.pyramid.extent),
            ("mpp", first.pyramid.mpp, other.pyramid.mpp),
            ("classes", first.image.classes.names, other.image.classes.names),
            ("class mode", first.image.classes.mode, other.image.classes.mode),
        ):
            if ours != theirs:
                raise StoreError(
                    f"members differ in {title}: {first.path} has {ours}, {other.path} has "
                    f"{theirs}; expected predictions of one slide with the same level and classes"
                )
    return first.image.classes


def compared(
    prediction: SlideStore, truth: SlideStore, label: str
) -> Iterator[tuple[SlideStore, SlideStore]]:
    """Yield pairs of prediction and truth to compare: one per class if classes overlap.

    A prediction of a single class is compared with the plane of its class.
    """
    image = prediction.image
    alone = image.names_classes and len(image.classes) == 1
    if not alone and (not image.names_classes or image.classes.planes is None):
        yield prediction, truth
        return
    true = truth.planes(label)
    require_same_classes(truth.name, image.classes, true.classes, label)
    for entry in image.classes:
        found = prediction if alone else class_view(prediction, entry)
        yield found, truth if true.channels is None else class_view(truth, entry)


def require_same_classes(slide: str, found: ClassTable, true: ClassTable, label: str) -> None:
    """Require that the truth has all classes of a prediction.

    Raises
    ------
    StoreError
        If a predicted class is missing from the truth.
    """
    if found.absent_from(true):
        raise StoreError(
            f"slide {slide!r}: the prediction has classes {', '.join(found.names)}, label "
            f"{label!r} has {', '.join(true.names)}; expected each predicted class in the label: "
            "choose another label, or rename a class of the label with "
            f"`wsi-seg annotate --classes {found.names[0]}={true.names[0]}`"
        )


def read_together(images: Sequence[Multiscale], region: Region) -> list[NDArray[np.uint8]]:
    """Read the same region of several predictions, each ``(H, W, C)`` uint8."""
    return [image.read(region, cached=False) for image in images]


def paired_strips(
    source: Source, classes: ClassTable, true: Multiscale, *, height: int
) -> Iterator[PredictionTruthStrip]:
    """Read a prediction and the truth in strips.

    Parameters
    ----------
    source
        Predicted ids and probabilities.
    classes
        Classes of the predicted ids.
    true
        Label map of the truth, at any level; classes are matched by name, others are background.
    height
        Number of rows of the prediction.
    """
    recode = classes.recoding(true.classes)
    for strip in source():
        rows, width = strip.ids.shape
        extent = Extent(height=height, width=width)
        ids = read_label(true, extent, strip.y, 0, height=rows, width=width)
        yield PredictionTruthStrip(strip.y, strip.ids, strip.probability, recode[ids])
