"""Owns plots: matplotlib figures as inline SVG, readable without colour."""

import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette (2008); lines also differ in dash and marker.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Lines of more points have no markers, which would hide the line.
_MAX_MARKERS = 30

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def line_plot(
    series: Series,
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
) -> str:
    """Plot lines as SVG.

    Parameters
    ----------
    series
        x and y values of each line by its name.
    x_label, y_label
        Labels of the axes.
    diagonal
        Whether to draw the line ``y = x``, the ideal of a reliability curve.
    """
    chart, axes = _new()
    if diagonal:
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="ideal")
    for number, (name, (x, y)) in enumerate(series.items()):
        axes.plot(
            x,
            y,
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_DASHES[number % len(_DASHES)],
            marker=_MARKERS[number % len(_MARKERS)] if len(x) <= _MAX_MARKERS else None,
            markersize=4,
            label=name,
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(series) + diagonal > 1:
        axes.legend(frameon=False)
    return _svg(chart)


def dot_plot(values: Mapping[str, Sequence[float]], x_label: str) -> str:
    """Plot scores of slides as SVG: one row of dots per name, with their mean as a bar."""
    chart, axes = _new(height=0.9 + 0.45 * len(values))
    for row, (name, scores) in enumerate(values.items()):
        colour = _COLOURS[row % len(_COLOURS)]
        axes.plot(scores, [row] * len(scores), "o", color=colour, alpha=0.6, markersize=6)
        mean = sum(scores) / len(scores)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, linewidth=2.5, label=name)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(x_label)
    return _svg(chart)


def bar_plot(values: Mapping[str, float], x_label: str) -> str:
    """Plot one bar per name as SVG."""
    chart, axes = _new(height=0.9 + 0.4 * len(values))
    bars = axes.barh(list(values), list(values.values()), color=_COLOURS[0], height=0.6)
    axes.bar_label(bars, labels=[f"{value:,.0f}" for value in values.values()], padding=4)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    return _svg(chart)


def _new(*, height: float = 3.1) -> tuple[Figure, Axes]:
    """Make a figure without pyplot, which would keep a reference to it."""
    chart = Figure(figsize=(5.4, height), layout="constrained")
    axes = chart.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    return chart, axes


def _svg(chart: Figure) -> str:
    out = io.StringIO()
    # Text is not converted to paths; fixed ids and no date make the output reproducible.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wsi_seg"}):
        chart.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
