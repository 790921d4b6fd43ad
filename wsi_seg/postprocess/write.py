"""Owns keeping a decision: the label ``decision`` next to a prediction's own label map."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from wsi_seg.classes import ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import Source, argmax_strips, certain_label_strips
from wsi_seg.progress import Silent
from wsi_seg.store import (
    Multiscale,
    SlideStore,
    create_multiscale,
    discard,
    fill_pyramid,
    finish,
    strip_rows,
    tidy,
    write_strip,
)

DECISION = "decision"


def write_decision(store: SlideStore, rule: Rule) -> Multiscale:
    """Apply a rule to a prediction and keep the result as its label ``decision``.

    A decision by the same rule that is there already is kept. Where only class ids were saved,
    these are decided on.

    Raises
    ------
    StoreError
        If the store is not a prediction, or the rule needs probabilities that were not saved.
    ResolutionError
        If the rule needs an mpp and the slide has none.
    """
    if DECISION in store.label_names():
        found = store.label(DECISION)
        if found.attributes.get("rule") == asdict(rule):
            return found
    if store.saved == "labels" and rule.needs_probabilities:
        raise StoreError(
            f"slide {store.name}: the rule ({rule.describe()}) needs probabilities, and only class "
            "ids were saved; decide on these with --threshold 0.5, or predict it again with "
            "`wsi-seg infer --save both --overwrite`"
        )
    read = certain_label_strips if store.saved == "labels" else argmax_strips
    px_area = rule.px_area(store.pyramid.mpp, name=store.name)

    def source(strip_px: int) -> Source:
        start = read(store.image, strip_px=strip_px)
        return decide(start, rule, px_area=px_area, extent=store.pyramid.extent)

    classes = classes_of(store.image)
    return write_label(store, DECISION, source, classes=classes, note={"rule": asdict(rule)})


def write_label(
    store: SlideStore,
    name: str,
    source: Callable[[int], Source],
    *,
    classes: ClassTable,
    note: dict[str, object],
) -> Multiscale:
    """Write a label map next to a prediction, of its size; one of that name is replaced.

    Parameters
    ----------
    store
        The prediction.
    name
        Of the label.
    source
        Gives the pixels in strips of this many rows.
    classes
        Ids of the pixels.
    note
        Plain JSON values to keep with the label.
    """
    partial = store.path / ".partial" / name
    if "slide_extent" in store.attributes:
        note = {"slide_extent": store.attributes["slide_extent"], **note}
    discard(partial)
    downsample = store.attributes.get("downsample", 1.0)
    mpp = store.pyramid.mpp
    if not isinstance(downsample, int | float):
        raise StoreError(f"{store.path}: got downsample {downsample!r}; expected a number")
    create_multiscale(
        partial,
        extents=store.pyramid.extents,
        channels=None,
        mpp=None if mpp is None else mpp / downsample,
        downsample=downsample,
        attributes={"kind": "label", "classes": classes.to_json(), **note},
        name=name,
    )
    for strip in source(strip_rows(partial))():
        write_strip(partial, 0, strip.y, strip.ids)
    fill_pyramid(partial, nearest=True, progress=Silent())
    final: Path = store.path / "labels" / name
    finish(partial, final, replace=True)
    tidy(store.path)
    return store.label(name)


def classes_of(image: Multiscale) -> ClassTable:
    """Classes that a prediction or label names.

    Raises
    ------
    StoreError
        If it does not name any.
    """
    rows = image.attributes.get("classes")
    if not isinstance(rows, list):
        raise StoreError(f"{image.path} names no classes; expected one written by wsi-seg")
    return ClassTable.from_json(rows)
