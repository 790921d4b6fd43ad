"""Owns the sections about a prediction: scores, pictures, errors, provenance, what went wrong."""

from collections.abc import Iterator, Mapping, Sequence

import yaml

from wsi_seg.ct.froc import Froc
from wsi_seg.evaluation.review_objects import ReviewObject, list_review_objects
from wsi_seg.evaluation.scores import Scores
from wsi_seg.progress import Progress
from wsi_seg.reporting.page import (
    Section,
    facts,
    figure,
    figures,
    paragraph,
    picture,
    preformatted,
    table,
)
from wsi_seg.reporting.pictures import crop, overview, wrong_objects
from wsi_seg.reporting.plots import dot_plot, line_plot
from wsi_seg.store import Collection, Predictions, SlideStore

# More slides, or more objects of one slide, are too many for a report.
MOST_SLIDES = 12
MOST_CROPS = 10

# Attributes with sections of their own; any others are figures of the run.
_SHOWN_ELSEWHERE = {
    "kind", "format", "slide", "classes", "saved", "settings", "notes", "training", "mpp",
    "downsample", "min_object_um2", "slide_extent",
}  # fmt: skip


def score_sections(scores: Scores) -> list[Section]:
    """Scores of each class, of each slide, and every curve among the figures."""
    data = scores.to_json()
    sections = []
    classes, slides = data.get("classes"), data.get("slides")
    if isinstance(classes, Mapping):
        columns = list(_columns(list(classes.values())))
        rows = [[name, *(row.get(column) for column in columns)] for name, row in classes.items()]
        plot = dot_plot(
            {
                name: [s.counts.dice for s in scores.slides if s.class_name == name]
                for name in scores.class_names
            },
            "Dice of each slide; bar: mean",
        )
        rest = {_words(key): value for key, value in data.items() if isinstance(value, int | float)}
        body = facts(rest) + table(["class", *map(_words, columns)], rows)
        sections.append(
            Section("Scores", body + figures([figure(plot, "Spread over slides")], "plots"))
        )
    if isinstance(slides, Sequence):
        columns = list(_columns(slides))
        rows = [[row.get(column) for column in columns] for row in slides]
        sections.append(Section("Slides", table([_words(c) for c in columns], rows, wide=True)))
    curves = [
        figure(line_plot({y: (x_values, y_values)}, x, y, diagonal="reliab" in title), title)
        for title, (x, x_values), (y, y_values) in _curves(data)
    ]
    if curves:
        sections.append(Section("Curves", figures(curves, "plots")))
    return sections


def froc_section(found: Froc) -> Section:
    """FROC curve, sensitivities at the usual rates, and CPM with its interval."""
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
    """Overviews with outlines, and a gallery of the largest errors.

    Parameters
    ----------
    predictions, slides
        The collections.
    truth
        Name of the true label; slides without it get no gallery.
    order
        Slides in the order in which they are shown; the first `MOST_SLIDES` are.
    progress
        Advanced by slides.
    """
    overviews, galleries = [], []
    shown = order[:MOST_SLIDES]
    progress.start("pictures", len(shown), "slides")
    for name in shown:
        slide, found = slides[name], predictions[name]
        true = slide.planes(truth) if truth in slide.label_names() else None
        overviews.append(figure(picture(overview(slide, found), f"Overview of {name}"), name))
        if true is not None:
            galleries += _gallery(slide, list_review_objects(slide, found, true))
        progress.advance(1)
    progress.finish()
    sections = []
    more = len(order) - len(shown)
    note = f"{more} more slides are not shown; these have the lowest scores. " if more else ""
    if overviews:
        body = paragraph(f"{note}Outlined: what was found.") + figures(overviews, "pictures")
        sections.append(Section("Overviews", body))
    if galleries:
        text = (
            "Objects found that are mostly not true (in the class's colour), and true ones that "
            "were missed (blue), by error mass: the sum of |probability - truth| over the "
            "object, where of class ids alone a probability is 0 or 1."
        )
        sections.append(Section("Largest errors", paragraph(text) + "".join(galleries)))
    return sections


def provenance_sections(predictions: Predictions, *, recipe: bool) -> list[Section]:
    """Tell settings, model, notes and quarantined tiles, as the prediction recorded them.

    ``recipe`` adds the recipe of the model, where no run's own is shown.
    """
    stores = list(predictions)
    first = stores[0].attributes
    sections = []
    settings = first.get("settings")
    if isinstance(settings, Mapping):
        alike = {
            key: value
            for key, value in settings.items()
            if all(_setting(store, key) == value for store in stores)
        }
        sections.append(Section("Settings", facts({_words(k): v for k, v in alike.items()})))
    rows = [{"slide": store.name} | _run_figures(store) for store in stores if _run_figures(store)]
    if rows:
        columns = list(_columns(rows))
        body = table([_words(c) for c in columns], [[r.get(c) for c in columns] for r in rows])
        sections.append(Section("Inference", body))
    training = first.get("training")
    if isinstance(training, Mapping) and training:
        plain = {k: v for k, v in training.items() if not isinstance(v, Mapping)}
        plain |= _prefixed("version of ", training.get("versions"))
        body = facts({_words(k): v for k, v in plain.items()})
        if recipe and isinstance(training.get("recipe"), Mapping):
            body += preformatted(yaml.safe_dump(training["recipe"], sort_keys=False))
        sections.append(Section("Model", body))
    sections += _trouble(stores)
    return sections


def lowest_first(scores: Scores) -> list[str]:
    """Slides by their mean Dice, the lowest first."""
    dice: dict[str, list[float]] = {}
    for score in scores.slides:
        dice.setdefault(score.slide, []).append(score.counts.dice)
    return sorted(dice, key=lambda name: sum(dice[name]) / len(dice[name]))


def _gallery(slide: SlideStore, objects: Sequence[ReviewObject]) -> list[str]:
    crops = [crop(slide, one) for one in wrong_objects(objects, MOST_CROPS)]
    if not crops:
        return []
    parts = [figure(picture(one.jpeg, one.caption), one.caption) for one in crops]
    return [paragraph(slide.name), figures(parts, "crops")]


def _trouble(stores: Sequence[SlideStore]) -> list[Section]:
    notes = [[store.name, note] for store in stores for note in _notes(store)]
    unreadable = [[store.name, *tile] for store in stores for tile in store.image.quarantined]
    sections = []
    if notes:
        sections.append(Section("Notes", table(["slide", "note"], notes)))
    if unreadable:
        text = "Tiles that could not be read; the prediction is 0 there."
        body = paragraph(text) + table(["slide", "y", "x", "reason"], unreadable)
        sections.append(Section("Quarantined tiles", body))
    return sections


def _run_figures(store: SlideStore) -> dict[str, object]:
    """Figures that inference recorded: whatever it notes besides the known attributes."""
    flat: dict[str, object] = {}
    for key, value in store.attributes.items():
        if key not in _SHOWN_ELSEWHERE:
            flat |= value if isinstance(value, Mapping) else {key: value}
    return {key: value for key, value in flat.items() if isinstance(value, int | float | str)}


def _curves(
    data: object, title: str = ""
) -> Iterator[tuple[str, tuple[str, list[float]], tuple[str, list[float]]]]:
    """Pairs of equally long lists of numbers that stand side by side, wherever they are."""
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
            yield title or key, (_words(keys[0]), lists[keys[0]]), (_words(key), lists[key])
    for key, value in data.items():
        yield from _curves(value, f"{title} {_words(key)}".strip())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, None]:
    """Keys of all rows whose values fit a cell, in the order in which they first occur."""
    return {
        key: None
        for row in rows
        for key, value in row.items()
        if not isinstance(value, Mapping) and not (isinstance(value, list) and len(value) > 3)
    }


def _setting(store: SlideStore, key: str) -> object:
    settings = store.attributes.get("settings")
    return settings.get(key) if isinstance(settings, Mapping) else None


def _notes(store: SlideStore) -> list[object]:
    notes = store.attributes.get("notes")
    return notes if isinstance(notes, list) else []


def _prefixed(prefix: str, values: object) -> dict[str, object]:
    if not isinstance(values, Mapping):
        return {}
    return {f"{prefix}{key}": value for key, value in values.items()}


def _words(key: str) -> str:
    return key.replace("_", " ")
