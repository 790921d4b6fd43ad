"""Owns storing a decision as the label ``decision`` of a prediction."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from wsi_seg.classes import ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.postprocess.decide import decide
from wsi_seg.postprocess.label_map import predicted_planes
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.strips import Source, Strip, argmax_strips, certain_label_strips
from wsi_seg.store import Layout, Multiscale, SlideStore, strip_rows, writing
from wsi_seg.store.class_view import class_views
from wsi_seg.store.names import DECISION_LABEL, LABELS


def write_decision(store: SlideStore, rule: Rule) -> Multiscale:
    """Apply a rule to a prediction, and store the result as its label ``decision``.

    An existing decision of the same rule is kept. If only class ids were saved, the rule is applied
    to those.

    Raises
    ------
    StoreError
        If the store is not a prediction, or the rule needs probabilities that were not saved.
    ResolutionError
        If the rule needs an mpp and the slide has none.
    """
    if DECISION_LABEL in store.label_names():
        found = store.planes(DECISION_LABEL)
        if found.attributes.get("rule") == asdict(rule):
            return found
    exclusive = store.image.classes.is_exclusive
    if store.saved == "labels" and rule.needs_probabilities(exclusive=exclusive):
        raise StoreError(
            f"slide {store.name}: the rule ({rule.describe()}) needs probabilities, but only class "
            f"ids were saved; use these with --threshold {0 if exclusive else 0.5:g}, or "
            "predict it again with `wsi-seg infer --save both --overwrite`"
        )
    read = certain_label_strips if store.saved == "labels" else argmax_strips
    px_area = rule.px_area(store.pyramid.mpp, name=store.name)

    def decided(image: Multiscale, strip_px: int) -> Source:
        start, extent = read(image, strip_px=strip_px), store.pyramid.extent
        return decide(start, rule, px_area=px_area, extent=extent, exclusive=exclusive)

    def source(strip_px: int) -> Source:
        sources = [decided(view.image, strip_px) for view in class_views(store)]
        return sources[0] if store.image.classes.planes is None else _planes(sources)

    note = {"rule": asdict(rule)}
    return write_label(store, DECISION_LABEL, source, classes=store.image.classes, note=note)


def decided_label(store: SlideStore, rule: Rule | None) -> Multiscale:
    """Return the label map of a rule's decision, or of inference without a rule.

    The label map has planes if classes overlap. Without a rule, objects below the minimum area of
    the model card are removed, if it states one and the slide's mpp is known.

    Raises
    ------
    StoreError, ResolutionError
        See `write_decision`.
    """
    least = store.prediction.min_object_um2
    if rule is None and least and store.pyramid.mpp is not None:
        rule = Rule(min_object_area=least)
    return predicted_planes(store) if rule is None else write_decision(store, rule)


def _planes(sources: Sequence[Source]) -> Source:
    """Stack the strips of independently decided classes to planes of one label."""

    def strips() -> Iterator[Strip]:
        for found in zip(*(source() for source in sources), strict=True):
            ids = [strip.ids * np.uint8(number) for number, strip in enumerate(found, 1)]
            yield Strip(found[0].y, np.stack(ids, axis=-1), found[0].probability)

    return strips


def write_label(
    store: SlideStore,
    name: str,
    source: Callable[[int], Source],
    *,
    classes: ClassTable,
    note: Mapping[str, object],
) -> Multiscale:
    """Add a label map of equal size to a prediction, or replace the one of the same name.

    Parameters
    ----------
    store
        The prediction.
    name
        Name of the label.
    source
        Returns the source of class ids in strips of a given number of rows.
    classes
        Classes of the ids.
    note
        JSON values to store as attributes of the label.
    """
    path = store.path / LABELS / name
    layout = Layout.like(store.image, channels=classes.planes)
    if "slide_extent" in store.attributes:
        note = {"slide_extent": store.attributes["slide_extent"], **note}
    about: dict[str, object] = {"kind": "label", "classes": classes.to_json(), **note}
    with writing(path, layout, about) as draft:
        strips = source(strip_rows(draft.path))()
        for region, strip in zip(draft.strips(), strips, strict=True):
            draft.write(region, strip.ids)
    return store.planes(name)
