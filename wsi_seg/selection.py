"""Owns selecting the slides of a command: by a pattern of names, or a table."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from wsi_seg.annotations.table import headers, plain, read_table
from wsi_seg.counts import list_names
from wsi_seg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Selection:
    """Selected slides.

    Parameters
    ----------
    text
        Pattern of names, or path of a table.
    listed
        Micrometres per pixel of level 0 by name in the table, None where it states none; None for a
        pattern.

    Examples
    --------
    >>> Selection.parse("case-1*").pick(["case-10", "case-20"])
    ('case-10',)
    """

    text: str
    listed: Mapping[str, float | None] | None = None

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """Parse a pattern such as ``case-1*``, or read a csv file with a column ``slide``.

        The file may also have a column ``mpp``; other columns are ignored.

        Raises
        ------
        ConfigError
            If the file cannot be read, has no such column, or a row has no name, the name of an
            earlier row, or an mpp that is not a positive number.
        AnnotationError
            If the file is not a csv file.
        """
        path = Path(text)
        if path.suffix.lower() != ".csv":
            return cls(text)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        return cls(text, _listed(path, content))

    def pick(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the selected names, in the given order.

        Raises
        ------
        ConfigError
            If no name matches the pattern, or the table lists unknown names.
        """
        known = tuple(names)
        if self.listed is None:
            found = tuple(name for name in known if fnmatchcase(name, self.text))
            if not found:
                raise ConfigError(
                    f"got {self.text!r}, which matches no slide; expected some of "
                    f"{list_names(known)}"
                )
            return found
        existing = set(known)
        if absent := [name for name in self.listed if name not in existing]:
            raise ConfigError(
                f"{self.text} lists unknown slides {list_names(absent)}; expected some "
                f"of {list_names(known)}"
            )
        return tuple(name for name in known if name in self.listed)

    def mpp(self, name: str) -> float | None:
        """Return the micrometres per pixel of level 0 in the table; None if it states none."""
        return None if self.listed is None else self.listed.get(name)


def _listed(path: Path, content: bytes) -> dict[str, float | None]:
    """Read the slides of a table."""
    if not content.strip():
        raise ConfigError(f"{path} is empty; expected a csv file with a column slide")
    separators = [one for one, names in headers(content) if "slide" in map(plain, names)]
    table = read_table(path, content, separators[0] if separators else ",")
    slide, mpp = table.column(["slide"]), table.column(["mpp"])
    if slide is None:
        raise ConfigError(
            f"{path} has the columns {', '.join(table.header)}; expected slide, and optionally mpp"
        )
    found: dict[str, float | None] = {}
    for line, row in table.rows:
        name = row[slide].strip()
        if not name or name in found:
            raise ConfigError(f"{path}: line {line} has the slide {name!r}; expected a unique name")
        found[name] = None if mpp is None else _number(path, line, row[mpp].strip())
    if not found:
        raise ConfigError(f"{path} lists no slides; expected one line per slide")
    return found


def _number(path: Path, line: int, text: str) -> float | None:
    """Parse micrometres per pixel; None for an empty cell."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{path}: line {line} has mpp {text!r}; expected a number such as 0.25")
    return value
