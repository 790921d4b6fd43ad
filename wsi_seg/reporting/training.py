"""Owns the report sections of a training run: model, curves, sampled patches and recipe."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.learn.position_bias import POSITION_BIAS, PositionBias
from wsi_seg.reporting.headings import heading
from wsi_seg.reporting.page import Section, facts, figure, figures, preformatted, table
from wsi_seg.reporting.plots import bar_plot, line_plot
from wsi_seg.reporting.position_bias import position_section
from wsi_seg.reporting.worst import RECIPE, WORST, worst_section

METRICS = "metrics.csv"
STOPPED = "stopped.txt"

# Prefix of columns that count sampled patches.
_DRAWN = "drawn_"

# Columns of the metrics that share a plot, with its title.
_CHARTS = (
    ("Loss", ("loss", "bce", "dice")),
    ("Learning rate", ("lr",)),
    ("Patches per second", ("patches_per_second",)),
)

_SCORES = ("val_dice", "val_dice_slide", "val_dice_objects", "val_triplet", "val_loss")

_MAX_ROWS = 40

Columns = dict[str, list[float | None]]


def is_run(folder: Path) -> bool:
    """Return whether a folder was written by training."""
    return (folder / RECIPE).is_file() and any(folder.rglob(METRICS))


def run_sections(folder: Path) -> list[Section]:
    """Make the sections of a run, once per phase or fold if it has any.

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
        worst = file.with_name(WORST)
        bias = file.with_name(POSITION_BIAS)
        if bias.is_file():
            sections.append(position_section(bias, f"Position bias{suffix}"))
        if worst.is_file():
            sections.append(worst_section(worst, f"Worst patches{suffix}"))
    recipe = _text(folder / RECIPE)
    sections.append(Section("Recipe", preformatted(recipe)))
    return sections


def run_warnings(folder: Path) -> list[str]:
    """List warnings about trainings that stopped early, and networks with a position bias.

    Raises
    ------
    ConfigError
        If a file is damaged.
    """
    files = sorted(folder.rglob(POSITION_BIAS))
    biased = [line for file in files for line in PositionBias.read(file).warnings()]
    return [*(_text(file) for file in sorted(folder.rglob(STOPPED))), *biased]


def _training(file: Path) -> str:
    columns = _metrics(file)
    plots = [figure(plot, title) for title, plot in _curves(columns).items()]
    plots += [plot] if (plot := _draws(columns)) else []
    shown = {name: values for name, values in columns.items() if not name.startswith(_DRAWN)}
    rows = [
        [None if value is None else int(value) if name == "epoch" else value for name, value in row]
        for row in _rows(shown)[-_MAX_ROWS:]
    ]
    heads = [heading(name) for name in shown]
    return _card(file.parent) + figures(plots, "plots") + table(heads, rows, wide=True)


def training_curves(file: Path) -> dict[str, str]:
    """Plot the metrics of a run, as SVG by title.

    Raises
    ------
    ConfigError
        If the metrics cannot be read.
    """
    return _curves(_metrics(file))


def _curves(columns: Columns) -> dict[str, str]:
    epochs = columns.get("epoch", [])
    charts = [(title, [n for n in names if n in columns]) for title, names in _CHARTS]
    charts.insert(1, ("Of slides held out", [n for n in _SCORES if n in columns]))
    pooled = [name for name in columns if name.startswith("val_pooled_dice")]
    if len(pooled) > 1:
        charts.insert(2, ("Pooled Dice on slides held out", pooled))
    return {
        title: line_plot({n: _points(epochs, columns[n]) for n in names}, "epoch", title)
        for title, names in charts
        if any(value is not None for name in names for value in columns[name])
    }


def _card(folder: Path) -> str:
    """Summarize the card of the best model."""
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
        "µm per pixel": card.get("mpp") or "unknown",
        "tile, px": card.get("tile_px"),
    }
    return facts(shown | (dict(scores) if isinstance(scores, Mapping) else {}))


def _draws(columns: Columns) -> str:
    """Plot the mean number of patches that an epoch sampled from each layer."""
    drawn = {
        name.removeprefix(_DRAWN).replace("_", " "): [v for v in values if v is not None]
        for name, values in columns.items()
        if name.startswith(_DRAWN)
    }
    epochs = max((len(values) for values in drawn.values()), default=0)
    counts = {name: sum(values) / epochs for name, values in drawn.items() if sum(values)}
    if not counts:
        return ""
    return figure(
        bar_plot(counts, "patches"), f"Patches per epoch, mean of {counted(epochs, 'epoch')}"
    )


def _metrics(file: Path) -> Columns:
    """Read the columns of the metrics; empty cells are None."""
    rows = list(csv.reader(_text(file).splitlines()))
    if not rows:
        raise ConfigError(f"{file} is empty; expected one row per epoch")
    try:
        return {
            name: [float(row[place]) if row[place] else None for row in rows[1:]]
            for place, name in enumerate(rows[0])
        }
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{file}: {error}; expected a number in each column") from error


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
