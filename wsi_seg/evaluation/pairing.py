"""Owns pairing a prediction with its truth, strip by strip, in the prediction's class ids.

What cannot be compared is refused here, naming both sides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE, ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.postprocess.strips import Source
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore, store_digest
from wsi_seg.store.class_view import class_view

# Slides without truth that are named; the others are counted.
_NAMED = 10


@dataclass(frozen=True, slots=True, eq=False)
class PredictionTruthStrip:
    """Rows of a prediction and of its truth.

    Parameters
    ----------
    y
        First row.
    found, true
        ``(h, W)`` uint8 class ids of the prediction's table; in ``true`` 255 is ignore.
    probability
        ``(h, W)`` uint8, value / 255, of the class found.
    """

    y: int
    found: NDArray[np.uint8]
    probability: NDArray[np.uint8]
    true: NDArray[np.uint8]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Pixels that count."""
        counted: NDArray[np.bool_] = self.true != IGNORE
        return counted


def lack_of_truth(slide: SlideStore, label: str) -> str | None:
    """Sentence about a label that a slide lacks, as of `SlideStore.label`; None if it is there."""
    names = slide.label_names()
    if label in names:
        return None
    return f"slide {slide.name}: got label {label!r}; it has: {', '.join(names) or 'none'}"


def unscored_lines(slides: Sequence[str]) -> list[str]:
    """Sentence about slides left out for lack of truth; nothing without any."""
    if not slides:
        return []
    named = ", ".join(slides[:_NAMED])
    more = f" and {len(slides) - _NAMED} more" if len(slides) > _NAMED else ""
    return [f"{len(slides)} slides not scored, for lack of truth: {named}{more}"]


def require_same_slide(prediction: SlideStore, truth: SlideStore) -> None:
    """Refuse a prediction of another slide, or of another level than it says.

    Raises
    ------
    StoreError
        Naming what the two sides say.
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
    tall, wide = full.height / here.height, full.width / here.width
    # Rounding moves a side by at most one pixel of either image.
    if abs(tall - wide) > (tall + 1) / here.height + (wide + 1) / here.width:
        raise StoreError(
            f"slide {truth.name!r} has {full}, its prediction {here}: these are not the same "
            "slide; expected sides in the same proportion"
        )
    noted = prediction.image.attributes.get("downsample")
    if isinstance(noted, int | float) and abs(tall - noted) > 2 * (tall + 1) / here.height + 1e-6:
        raise StoreError(
            f"slide {truth.name!r}: its prediction says it is {noted:g} times below level 0, "
            f"but {here} against {full} is {tall:.4g} times; expected the same level"
        )


def require_alike(stores: Sequence[SlideStore]) -> ClassTable:
    """Refuse predictions of one slide that cannot be combined; return their classes.

    Raises
    ------
    StoreError
        Naming what two of them say.
    """
    first = stores[0]
    for other in stores[1:]:
        for what, ours, theirs in (
            ("slide", first.attributes.get("slide"), other.attributes.get("slide")),
            ("size", first.pyramid.extent, other.pyramid.extent),
            ("mpp", first.pyramid.mpp, other.pyramid.mpp),
            ("classes", first.image.classes.names, other.image.classes.names),
            ("class mode", first.image.classes.mode, other.image.classes.mode),
        ):
            if ours != theirs:
                raise StoreError(
                    f"members differ in {what}: {first.path} has {ours}, {other.path} has "
                    f"{theirs}; expected predictions of one slide with the same level and classes"
                )
    return first.image.classes


def compared(
    prediction: SlideStore, truth: SlideStore, label: str
) -> Iterator[tuple[SlideStore, SlideStore]]:
    """Prediction and truth as they are compared: class by class where classes overlap.

    A prediction of one class is compared with its plane of a truth that has several.
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
    """Refuse a prediction with classes that the truth has not.

    Raises
    ------
    StoreError
        Naming both lists.
    """
    if found.absent_from(true):
        raise StoreError(
            f"slide {slide!r}: the prediction has classes {', '.join(found.names)}, label "
            f"{label!r} has {', '.join(true.names)}; expected each predicted class in the label: "
            "choose another label, or draw a class of the label under the predicted name with "
            f"`wsi-seg annotate --classes {found.names[0]}={true.names[0]}`"
        )


def read_together(images: Sequence[Multiscale], region: Region) -> list[NDArray[np.uint8]]:
    """Read the same region of several predictions, each ``(H, W, C)`` uint8."""
    return [image.read(region, cached=False) for image in images]


def paired_strips(
    source: Source, classes: ClassTable, true: Multiscale, *, height: int
) -> Iterator[PredictionTruthStrip]:
    """Read the truth with each strip of a prediction.

    Parameters
    ----------
    source
        Ids and probabilities found.
    classes
        Table of those ids.
    true
        Label map with the truth, of any level; classes are matched by name, others are background.
    height
        Rows of the prediction.
    """
    recode = classes.recoding(true.classes)
    for strip in source():
        rows, width = strip.ids.shape
        extent = Extent(height=height, width=width)
        ids = read_label(true, extent, strip.y, 0, height=rows, width=width)
        yield PredictionTruthStrip(strip.y, strip.ids, strip.probability, recode[ids])
