"""Owns reading csv tables: encoding, separator, blank lines, and looking up columns."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.counts import counted
from wsi_seg.errors import AnnotationError
from wsi_seg.limits import advice, limits

_SEPARATORS = (",", ";", "\t", "|")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a csv file, without blank lines.

    Parameters
    ----------
    header
        Names of the columns.
    rows
        Line number (from 1) of each row, and its cells, one per column.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, names: Sequence[str]) -> int | None:
        """Return the index of the first of these names that is a column; see `plain`."""
        known = [plain(column) for column in self.header]
        return next((known.index(name) for name in names if name in known), None)


def plain(column: str) -> str:
    """Normalise a column name to lower-case letters and digits: ``Image_ID`` is ``imageid``.

    Examples
    --------
    >>> plain(" Encoded Pixels"), plain("img_height")
    ('encodedpixels', 'imgheight')
    """
    return re.sub(r"[\W_]+", "", column.lower())


def text_of(path: Path, content: bytes) -> str:
    """Decode a table in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets write it.

    Raises
    ------
    AnnotationError
        If it is neither.
    """
    try:
        return content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not text in UTF-8; expected a csv file") from error


def headers(content: bytes) -> list[tuple[str, tuple[str, ...]]]:
    """Return the columns in the first line of a file, for each separator that occurs in it."""
    encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
    text = content[:65536].decode(encoding, "replace").lstrip()
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    if line[:1] in {"{", "[", "<"}:
        return []
    found = []
    for separator in _SEPARATORS:
        if separator in line:
            try:
                cells = next(csv.reader([line], delimiter=separator), [])
            except csv.Error:
                continue
            found.append((separator, tuple(cell.strip() for cell in cells)))
    return found


def read_table(path: Path, content: bytes, separator: str) -> Table:
    """Read a table.

    Raises
    ------
    AnnotationError
        If it is not text, is too large, or a row does not have one cell per column.
    """
    text = text_of(path, content)
    if text.count(separator) + text.count("\n") + text.count("\r") > limits().text_values:
        raise AnnotationError(f"{path} has too many cells; {advice('text_values')}")
    before = csv.field_size_limit(limits().text_bytes)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        begin = 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((begin, tuple(cells)))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise AnnotationError(f"{path} is not a csv file: {error}") from error
    finally:
        csv.field_size_limit(before)
    header = tuple(cell.strip() for cell in rows[0][1])
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise AnnotationError(
                f"{path}: line {line} has {counted(len(row), 'column')}; expected {len(header)}"
            )
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise AnnotationError(f"{path}: got the columns {', '.join(twice)} twice")
    return Table(header, tuple(rows[1:]))
