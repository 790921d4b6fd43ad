"""Owns the HTML of reports: one file with inlined style, images and plots, for screen and print."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

_MAX_COLUMNS = 8
_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell, and its unrounded value if it is a number."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Title and HTML of a section of the report."""

    title: str
    body: str

    @property
    def id(self) -> str:
        """HTML id of the section."""
        return self.title.lower().replace(" ", "-")


def number(value: float) -> Cell:
    """Format a number to four decimals, or as a count."""
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    whole = isinstance(value, int) or (float(value).is_integer() and abs(value) >= 2)
    if whole:
        return Cell(f"{int(value):,}", value)
    small = value != 0 and abs(value) < 0.001
    return Cell(f"{value:.3g}" if small or abs(value) >= 1000 else f"{value:.4f}", value)


def cell(value: object) -> Cell:
    """Format any JSON value."""
    if isinstance(value, int | float):
        return number(value)
    if value is None:
        return Cell(_NOTHING)
    if isinstance(value, list | tuple):
        return Cell(", ".join(cell(one).text for one in value))
    if isinstance(value, Mapping):
        return Cell(", ".join(f"{key} {cell(one).text}" for key, one in value.items()))
    return Cell(str(value))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    names: int = 1,
    wide: bool = False,
) -> str:
    """Make an HTML table; numbers are right-aligned, with their unrounded values as attributes.

    A table that is too wide for A4 is split into several tables. On phones, each row is a list of
    headers and values.

    Parameters
    ----------
    columns
        Headers.
    rows
        JSON values, or cells.
    names
        Number of leading columns that name a row; each of the split tables repeats them.
    wide
        Whether the table has the full width.
    """
    cells = [[value if isinstance(value, Cell) else cell(value) for value in row] for row in rows]
    step = _MAX_COLUMNS - names
    starts = range(names, max(len(columns), names + 1), step)
    parts = [[*range(names), *range(n, min(n + step, len(columns)))] for n in starts]
    return "".join(
        _table([columns[n] for n in part], [[row[n] for n in part] for row in cells], wide=wide)
        for part in parts
    )


def _table(columns: Sequence[str], cells: Sequence[Sequence[Cell]], *, wide: bool) -> str:
    # A column of numbers may have empty cells.
    numeric = [
        any(row[n].value is not None for row in cells)
        and all(row[n].value is not None or row[n].text == _NOTHING for row in cells)
        for n in range(len(columns))
    ]
    head = "".join(
        f"<th{' class=n' if right else ''}>{_text(column)}</th>"
        for column, right in zip(columns, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_table_cell, row, columns, numeric))}</tr>" for row in cells)
    kind = ' class="wide"' if wide else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(pairs: Mapping[str, object]) -> str:
    """Make an HTML list of names and values."""
    rows = "".join(f"<dt>{_text(name)}</dt>{_value(value)}" for name, value in pairs.items())
    return f"<dl>{rows}</dl>"


def figure(content: str, caption: str) -> str:
    """Make an HTML figure of a plot or an image."""
    return f"<figure>{content}<figcaption>{_text(caption)}</figcaption></figure>"


def figures(parts: Sequence[str], kind: str) -> str:
    """Arrange figures in a grid; ``kind`` determines their size: plots, pictures or crops."""
    return f'<div class="{kind}">{"".join(parts)}</div>'


def picture(jpeg: bytes, alternative: str) -> str:
    """Make an HTML image with an inlined JPEG."""
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img alt="{_text(alternative)}" src="data:image/jpeg;base64,{data}">'


def warnings(texts: Sequence[str]) -> str:
    """Make an HTML list of warnings."""
    return f"<ul class=warnings>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


def paragraph(text: str) -> str:
    """Make an HTML paragraph of plain text."""
    return f"<p>{_text(text)}</p>"


def preformatted(text: str) -> str:
    """Make preformatted HTML text."""
    return f"<pre>{_text(text)}</pre>"


def page(title: str, subtitle: str, sections: Sequence[Section], data: Mapping[str, object]) -> str:
    """Make the HTML file.

    Parameters
    ----------
    title, subtitle
        Heading of the page.
    sections
        Sections in reading order.
    data
        Machine-readable values, which the page embeds as JSON.
    """
    style = files("wsi_seg.reporting").joinpath("style.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{_text(one.id)}">{_text(one.title)}</a>' for one in sections)
    body = "".join(
        f'<section id="{_text(one.id)}"><h2>{_text(one.title)}</h2>{one.body}</section>'
        for one in sections
    )
    # "</" would end the script element, even within a JSON string.
    embedded = json.dumps(data).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{_text(title)}</h1><p>{_text(subtitle)}</p><nav>{links}</nav></header>"
        f'<main>{body}</main><script type="application/json" id="figures">{embedded}</script>'
        "</body></html>\n"
    )


def _table_cell(shown: Cell, head: str, numeric: bool) -> str:
    kind = " class=n" if numeric else ""
    return f'<td{kind} data-head="{_text(head)}"{_data_value(shown)}>{_text(shown.text)}</td>'


def _value(value: object) -> str:
    shown = cell(value)
    return f"<dd{_data_value(shown)}>{_text(shown.text)}</dd>"


def _data_value(shown: Cell) -> str:
    return "" if shown.value is None else f' data-value="{shown.value!r}"'


def _text(text: str) -> str:
    return html.escape(text, quote=True)
