"""Owns the sections about a training run: its model, its curves, its draws and its recipe."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from wsi_seg.errors import ConfigError
from wsi_seg.report.page import Section, facts, figure, figures, preformatted, table
from wsi_seg.report.plots import bar_plot, line_plot

RECIPE = "recipe.yaml"
METRICS = "metrics.csv"

# Columns of the metrics that are drawn together, and what their axis is called.
_CHARTS = (
    ("Loss", ("loss", "bce", "dice")),
    ("Learning rate", ("lr",)),
    ("Patches per second", ("patches_per_second",)),
)

_MOST_ROWS = 40

Columns = dict[str, list[float | None]]


def is_run(folder: Path) -> bool:
    """Whether a folder was written by training."""
    return (folder / RECIPE).is_file() and any(folder.rglob(METRICS))


def run_sections(folder: Path) -> list[Section]:
    """Sections of one run; one with phases or folds has a part for each.

    Raises
    ------
    ConfigError
        If a file of the run cannot be read.
    """
    sections = []
    parts = sorted(folder.rglob(METRICS), key=lambda file: (len(file.parts), file))
    for file in parts:
        part = file.parent.relative_to(folder).as_posix()
        suffix = "" if part == "." else f" {part}"
        sections.append(Section(f"Training{suffix}", _training(file)))
    recipe = _text(folder / RECIPE)
    sections += _sampling(folder / RECIPE, recipe)
    sections.append(Section("Recipe", preformatted(recipe)))
    return sections


def _training(file: Path) -> str:
    columns = _metrics(file)
    epochs = columns.get("epoch", [])
    charts = [(title, [n for n in names if n in columns]) for title, names in _CHARTS]
    scores = [name for name in columns if name.startswith("val_dice")]
    charts.insert(1, ("Dice on slides held out", scores))
    plots = [
        figure(line_plot({n: _points(epochs, columns[n]) for n in names}, "epoch", title), title)
        for title, names in charts
        if any(value is not None for name in names for value in columns[name])
    ]
    rows = [
        [None if value is None else int(value) if name == "epoch" else value for name, value in row]
        for row in _rows(columns)[-_MOST_ROWS:]
    ]
    heads = [name.replace("_", " ") for name in columns]
    return _card(file.parent) + figures(plots, "plots") + table(heads, rows, wide=True)


def _card(folder: Path) -> str:
    """Facts of the best model, from the card beside it."""
    file = folder / "best.json"
    if not file.is_file():
        return ""
    try:
        card = json.loads(_text(file))
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON ({error}); train again") from error
    scores = card.get("scores")
    shown = {
        "model": f"{card.get('architecture')}, {card.get('encoder')}",
        "um per px": card.get("mpp"),
        "tile, px": card.get("tile_px"),
    }
    return facts(shown | (dict(scores) if isinstance(scores, Mapping) else {}))


def _sampling(file: Path, text: str) -> list[Section]:
    """Patches that an epoch draws from each layer, as the recipe shares them out."""
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML ({error}); train again") from error
    sampling = recipe.get("sampling") if isinstance(recipe, Mapping) else None
    if not isinstance(sampling, Mapping) or not isinstance(sampling.get("mix"), Mapping):
        return []
    total = sampling.get("patches_per_epoch")
    if not isinstance(total, int):
        return []
    shares = {
        name: share * total
        for name, share in sampling["mix"].items()
        if isinstance(share, int | float)
    }
    counts = {name: count for name, count in shares.items() if count}
    if not counts:
        return []
    plot = figure(bar_plot(counts, "patches"), f"Patches of an epoch by layer, of {total:,}")
    return [Section("Sampling", figures([plot], "plots"))]


def _metrics(file: Path) -> Columns:
    """Columns of the metrics; empty cells are None."""
    rows = list(csv.reader(_text(file).splitlines()))
    if not rows:
        raise ConfigError(f"{file} is empty; expected one row per epoch")
    try:
        return {
            name: [float(row[place]) if row[place] else None for row in rows[1:]]
            for place, name in enumerate(rows[0])
        }
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{file}: {error}; expected numbers under each head") from error


def _rows(columns: Columns) -> list[list[tuple[str, float | None]]]:
    count = len(next(iter(columns.values()), []))
    return [[(name, values[n]) for name, values in columns.items()] for n in range(count)]


def _points(x: list[float | None], y: list[float | None]) -> tuple[list[float], list[float]]:
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
