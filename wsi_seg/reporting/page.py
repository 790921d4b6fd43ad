"""Owns the page: one HTML file with its style, pictures and plots inside, for screen and print."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

_MOST_COLUMNS = 8
_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table's cell; a number keeps its full value with what is shown."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report: its title and finished HTML."""

    title: str
    body: str

    @property
    def id(self) -> str:
        """Anchor of the section."""
        return self.title.lower().replace(" ", "-")


def number(value: float) -> Cell:
    """Show a number to four places, or as a count; the whole value stays in the file."""
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    whole = isinstance(value, int) or (float(value).is_integer() and abs(value) >= 2)
    if whole:
        return Cell(f"{int(value):,}", value)
    small = value != 0 and abs(value) < 0.001
    return Cell(f"{value:.3g}" if small or abs(value) >= 1000 else f"{value:.4f}", value)


def cell(value: object) -> Cell:
    """Show any JSON value."""
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
    """HTML table; numbers are aligned to the right and carry their whole value.

    More columns than a page of A4 has room for go into further tables below. On a phone each row
    is a list of its heads and values.

    Parameters
    ----------
    columns
        Heads.
    rows
        JSON values, or cells.
    names
        Columns at the left that name a row, and stand in each of the tables.
    wide
        Whether the table takes the full width.
    """
    cells = [[value if isinstance(value, Cell) else cell(value) for value in row] for row in rows]
    step = _MOST_COLUMNS - names
    starts = range(names, max(len(columns), names + 1), step)
    parts = [[*range(names), *range(n, min(n + step, len(columns)))] for n in starts]
    return "".join(
        _table([columns[n] for n in part], [[row[n] for n in part] for row in cells], wide=wide)
        for part in parts
    )


def _table(columns: Sequence[str], cells: Sequence[Sequence[Cell]], *, wide: bool) -> str:
    # A column of numbers may have gaps.
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
    """HTML list of names and values."""
    rows = "".join(f"<dt>{_text(name)}</dt>{_value(value)}" for name, value in pairs.items())
    return f"<dl>{rows}</dl>"


def figure(content: str, caption: str) -> str:
    """HTML figure around a plot or a picture."""
    return f"<figure>{content}<figcaption>{_text(caption)}</figcaption></figure>"


def figures(parts: Sequence[str], kind: str) -> str:
    """Figures side by side; ``kind`` names how large they are: plots, pictures or crops."""
    return f'<div class="{kind}">{"".join(parts)}</div>'


def picture(jpeg: bytes, alternative: str) -> str:
    """HTML picture with its bytes inside."""
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img alt="{_text(alternative)}" src="data:image/jpeg;base64,{data}">'


def warnings(texts: Sequence[str]) -> str:
    """HTML list of what to know before the figures are trusted."""
    return f"<ul class=warnings>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


def paragraph(text: str) -> str:
    """HTML paragraph of plain text."""
    return f"<p>{_text(text)}</p>"


def preformatted(text: str) -> str:
    """Text as it is, for recipes."""
    return f"<pre>{_text(text)}</pre>"


def page(title: str, subtitle: str, sections: Sequence[Section], data: Mapping[str, object]) -> str:
    """Whole file.

    Parameters
    ----------
    title, subtitle
        Head of the page.
    sections
        In reading order.
    data
        The figures as JSON, kept in the file for programs.
    """
    style = files("wsi_seg.reporting").joinpath("style.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{_text(one.id)}">{_text(one.title)}</a>' for one in sections)
    body = "".join(
        f'<section id="{_text(one.id)}"><h2>{_text(one.title)}</h2>{one.body}</section>'
        for one in sections
    )
    # "</" would end the script element whatever it stands in.
    kept = json.dumps(data).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{_text(title)}</h1><p>{_text(subtitle)}</p><nav>{links}</nav></header>"
        f'<main>{body}</main><script type="application/json" id="figures">{kept}</script>'
        "</body></html>\n"
    )


def _table_cell(shown: Cell, head: str, numeric: bool) -> str:
    kind = " class=n" if numeric else ""
    kept = "" if shown.value is None else f' data-value="{shown.value!r}"'
    return f'<td{kind} data-head="{_text(head)}"{kept}>{_text(shown.text)}</td>'


def _value(value: object) -> str:
    shown = cell(value)
    kept = "" if shown.value is None else f' data-value="{shown.value!r}"'
    return f"<dd{kept}>{_text(shown.text)}</dd>"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
