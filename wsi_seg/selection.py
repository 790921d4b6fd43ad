"""Owns which slides a command works on: those of a pattern of names, or of a table."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from wsi_seg.annotations.table import headers, plain, read_table
from wsi_seg.errors import ConfigError

# Names that a message lists; the others are counted.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Selection:
    """Slides that were asked for.

    Parameters
    ----------
    asked
        Pattern of names, or path of the table.
    listed
        Names of the table, each with its micrometres per pixel at level 0, None where the table
        does not say them; None for a pattern.

    Examples
    --------
    >>> Selection.parse("case-1*").pick(["case-10", "case-20"])
    ('case-10',)
    """

    asked: str
    listed: Mapping[str, float | None] | None = None

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """Read a pattern such as ``case-1*``, or a csv file with a column ``slide``.

        A file may have a column ``mpp``, too; other columns are left alone.

        Raises
        ------
        ConfigError
            If a file cannot be read, has no such column, or a row has no name, one that an earlier
            row had, or an mpp that is not a positive number.
        AnnotationError
            If it is not a csv file.
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
        """Names that were asked for, in the order given.

        Raises
        ------
        ConfigError
            If nothing fits the pattern, or the table names others.
        """
        known = tuple(names)
        if self.listed is None:
            found = tuple(name for name in known if fnmatchcase(name, self.asked))
            if not found:
                raise ConfigError(
                    f"got {self.asked!r}, which no slide fits; there are {_some(known)}"
                )
            return found
        if absent := [name for name in self.listed if name not in known]:
            raise ConfigError(
                f"{self.asked} lists {_some(absent)}, which are not there; there are {_some(known)}"
            )
        return tuple(name for name in known if name in self.listed)

    def mpp(self, name: str) -> float | None:
        """Micrometres per pixel at level 0 that the table says; None where it does not."""
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
            f"{path} has the columns {', '.join(table.header)}; expected slide, and mpp if you like"
        )
    found: dict[str, float | None] = {}
    for line, row in table.rows:
        name = row[slide].strip()
        if not name or name in found:
            raise ConfigError(
                f"{path}: line {line} has the slide {name!r}; expected a name of its own"
            )
        found[name] = None if mpp is None else _number(path, line, row[mpp].strip())
    if not found:
        raise ConfigError(f"{path} lists no slides; expected a line for each")
    return found


def _number(path: Path, line: int, text: str) -> float | None:
    """Read micrometres per pixel; None for an empty cell."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{path}: line {line} has mpp {text!r}; expected a number such as 0.25")
    return value


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED]) or 'none'}{more}"
