"""Owns the report sections of a prediction: scores, images, errors, provenance, warnings."""

from collections.abc import Iterator, Mapping, Sequence

import yaml

from wsi_seg.counts import counted
from wsi_seg.ct.froc import Froc
from wsi_seg.evaluation.cautions import cautions
from wsi_seg.evaluation.review_objects import ReviewObject, list_review_objects
from wsi_seg.evaluation.scores import Scores
from wsi_seg.progress import Progress
from wsi_seg.reporting.headings import heading
from wsi_seg.reporting.page import (
    Section,
    facts,
    figure,
    figures,
    paragraph,
    picture,
    preformatted,
    table,
    warnings,
)
from wsi_seg.reporting.pictures import crop, overview, worst_and_typical
from wsi_seg.reporting.plots import dot_plot, line_plot
from wsi_seg.store import Collection, Predictions, SlideStore

MAX_SLIDES = 12
MAX_CROPS = 10

_WORST = (
    "Found objects that are mostly not true (blue), and true objects that were missed (red), with "
    "the largest error mass: the sum of |probability - truth| over the object. If only class ids "
    "were saved, probabilities are 0 or 1."
)
_TYPICAL = "Found objects that are mostly true (orange), with error masses around the median."

# Attributes that other sections show; the remaining ones are statistics of the run.
_SHOWN_ELSEWHERE = {
    "kind", "format", "slide", "classes", "saved", "settings", "notes", "training", "mpp",
    "downsample", "min_object_um2", "slide_extent",
}  # fmt: skip


def score_sections(scores: Scores) -> list[Section]:
    """Make the sections of scores per class, scores per slide, and curves."""
    data = scores.to_json()
    sections = []
    classes, slides = data.get("classes"), data.get("slides")
    if isinstance(classes, Mapping):
        columns = list(_columns(list(classes.values())))
        rows = [[heading(key), *(row.get(key) for row in classes.values())] for key in columns]
        plot = dot_plot(
            {
                name: [s.counts.dice for s in scores.slides if s.class_name == name]
                for name in scores.class_names
            },
            "Dice of each slide; bar: mean",
        )
        rest = {
            heading(key): value for key, value in data.items() if isinstance(value, int | float)
        }
        body = facts(rest) + table(["", *map(str, classes)], rows)
        sections.append(
            Section("Scores", body + figures([figure(plot, "Spread over slides")], "plots"))
        )
    if isinstance(slides, Sequence):
        columns = list(_columns(slides))
        rows = [[row.get(column) for column in columns] for row in slides]
        body = table([heading(c) for c in columns], rows, names=2, wide=True)
        sections.append(Section("Slides", body))
    curves = [
        figure(line_plot({y: (x_values, y_values)}, x, y, diagonal="reliab" in title), title)
        for title, (x, x_values), (y, y_values) in _curves(data)
    ]
    if curves:
        sections.append(Section("Curves", figures(curves, "plots")))
    return sections


def froc_section(found: Froc) -> Section:
    """Make the section of the FROC curve, sensitivities at the usual rates, and CPM."""
    curve = list(found.false_per_scan), list(found.sensitivity)
    plot = line_plot({"sensitivity": curve}, "false positives per scan", "sensitivity")
    summary: dict[str, object] = {
        "CPM": found.cpm, "CPM low": found.low, "CPM high": found.high,
        "scans": found.scans, "true findings": found.true, "candidates": found.candidates,
    }  # fmt: skip
    rows = list(zip(found.rates, found.at_rates, strict=True))
    body = facts(summary) + table(["false positives per scan", "sensitivity"], rows)
    return Section("FROC", body + figures([figure(plot, "FROC")], "plots"))


def picture_sections(
    predictions: Predictions,
    slides: Collection,
    truth: str,
    *,
    order: Sequence[str],
    progress: Progress,
) -> list[Section]:
    """Make the sections of overviews with outlines, and of the worst and typical objects.

    Parameters
    ----------
    predictions, slides
        The collections.
    truth
        Name of the ground-truth label; slides without it are not in the galleries.
    order
        Names of slides in the order of the report, which shows the first `MAX_SLIDES`.
    progress
        Advanced by slides.
    """
    overviews, objects = [], list[tuple[str, ReviewObject]]()
    shown = order[:MAX_SLIDES]
    progress.start("pictures", len(shown), "slides")
    for name in shown:
        slide, found = slides[name], predictions[name]
        true = slide.planes(truth) if truth in slide.label_names() else None
        overviews.append(figure(picture(overview(slide, found), f"Overview of {name}"), name))
        if true is not None:
            objects += [(name, one) for one in list_review_objects(slide, found, true)]
        progress.advance(1)
    progress.finish()
    more = len(order) - len(shown)
    note = (
        f"{counted(more, 'more slide')} not shown; these have the lowest scores. " if more else ""
    )
    body = paragraph(f"{note}Predicted objects are outlined.") + figures(overviews, "pictures")
    worst, typical = worst_and_typical(objects, MAX_CROPS)
    places = [
        _gallery("Worst places", _WORST, worst, slides),
        _gallery("Typical places", _TYPICAL, typical, slides),
    ]
    return [Section("Overviews", body), *(one for one in places if one is not None)]


def provenance_sections(predictions: Predictions, *, recipe: bool) -> list[Section]:
    """Make the sections of settings, model and quarantined tiles, as recorded in the prediction.

    ``recipe`` adds the recipe of the model, for reports without a training run.
    """
    stores = list(predictions)
    first = stores[0].attributes
    sections = []
    settings = first.get("settings")
    if isinstance(settings, Mapping):
        common = {
            key: value
            for key, value in settings.items()
            if all(_setting(store, key) == value for store in stores)
        }
        sections.append(Section("Settings", facts({heading(k): v for k, v in common.items()})))
    rows = [{"slide": store.name} | _run_figures(store) for store in stores if _run_figures(store)]
    if rows:
        columns = list(_columns(rows))
        body = table([heading(c) for c in columns], [[r.get(c) for c in columns] for r in rows])
        sections.append(Section("Inference", body))
    training = first.get("training")
    if isinstance(training, Mapping) and training:
        plain = {k: v for k, v in training.items() if not isinstance(v, Mapping)}
        plain |= _prefixed("version of ", training.get("versions"))
        body = facts({heading(k): v for k, v in plain.items()})
        if recipe and isinstance(training.get("recipe"), Mapping):
            body += preformatted(yaml.safe_dump(training["recipe"], sort_keys=False))
        sections.append(Section("Model", body))
    return sections + _unreadable(stores)


def lowest_first(scores: Scores) -> list[str]:
    """Sort slides by ascending mean Dice."""
    dice: dict[str, list[float]] = {}
    for score in scores.slides:
        dice.setdefault(score.slide, []).append(score.counts.dice)
    return sorted(dice, key=lambda name: sum(dice[name]) / len(dice[name]))


def warning_section(lines: Sequence[str]) -> list[Section]:
    """Make the section of warnings, if there are any."""
    unique = list(dict.fromkeys(lines))
    return [Section("Warnings", warnings(unique))] if unique else []


def prediction_warnings(predictions: Predictions, slides: Collection | None) -> list[str]:
    """List the warnings about each prediction; see `cautions`."""
    known = frozenset(() if slides is None else slides.names())
    return [
        line
        for found in predictions
        for slide in [slides[found.name] if slides is not None and found.name in known else None]
        for line in cautions(slide, found)
    ]


def _gallery(
    title: str, text: str, places: Sequence[tuple[str, ReviewObject]], slides: Collection
) -> Section | None:
    if not places:
        return None
    crops = [crop(slides[name], one) for name, one in places]
    parts = [figure(picture(one.jpeg, one.caption), one.caption) for one in crops]
    return Section(title, paragraph(text) + figures(parts, "crops"))


def _unreadable(stores: Sequence[SlideStore]) -> list[Section]:
    tiles = [[store.name, *tile] for store in stores for tile in store.image.quarantined]
    if not tiles:
        return []
    text = "Tiles that could not be read; the prediction is 0 there."
    body = paragraph(text) + table(["slide", "y", "x", "reason"], tiles)
    return [Section("Quarantined tiles", body)]


def _run_figures(store: SlideStore) -> dict[str, object]:
    """Return the statistics that inference recorded: all attributes that no other section shows."""
    flat: dict[str, object] = {}
    for key, value in store.attributes.items():
        if key not in _SHOWN_ELSEWHERE:
            flat |= value if isinstance(value, Mapping) else {key: value}
    return {key: value for key, value in flat.items() if isinstance(value, int | float | str)}


def _curves(
    data: object, title: str = ""
) -> Iterator[tuple[str, tuple[str, list[float]], tuple[str, list[float]]]]:
    """Yield curves: pairs of lists of equal length in the same mapping, at any depth."""
    if not isinstance(data, Mapping):
        return
    lists = {
        key: value
        for key, value in data.items()
        if isinstance(value, list) and len(value) > 1 and all(_is_number(one) for one in value)
    }
    keys = list(lists)
    for key in keys[1:]:
        if len(lists[key]) == len(lists[keys[0]]):
            yield title or key, (heading(keys[0]), lists[keys[0]]), (heading(key), lists[key])
    for key, value in data.items():
        yield from _curves(value, f"{title} {heading(key)}".strip())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, None]:
    """Return the keys of all rows whose values fit a cell, in the order of first occurrence."""
    return {
        key: None
        for row in rows
        for key, value in row.items()
        if not isinstance(value, Mapping) and not (isinstance(value, list) and len(value) > 3)
    }


def _setting(store: SlideStore, key: str) -> object:
    settings = store.attributes.get("settings")
    return settings.get(key) if isinstance(settings, Mapping) else None


def _prefixed(prefix: str, values: object) -> dict[str, object]:
    if not isinstance(values, Mapping):
        return {}
    return {f"{prefix}{key}": value for key, value in values.items()}
