"""Owns the class table: which id, name and colour each segmented structure has."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wsi_seg.errors import ConfigError

BACKGROUND = 0
IGNORE = 255

# Annotations of this class are drawn as 255: there nothing is learned and nothing is scored.
IGNORE_NAME = "ignore"

# Okabe and Ito's palette (2008), told apart by colour-blind readers; black is left out.
_PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One structure to segment.

    Parameters
    ----------
    id
        Value in label maps, 1 to 254; 0 is background and 255 is ignore.
    name
        Name as annotations spell it.
    colour
        ``#rrggbb``.
    """

    id: int
    name: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, each 0 to 255."""
        return (int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16))


@dataclass(frozen=True, slots=True)
class ClassTable:
    """All classes of a task, in the order of the model's output channels.

    Class ids are 1, 2, 3 ... in table order, so channel ``c`` of a model belongs to id ``c + 1``.
    """

    entries: tuple[ClassEntry, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) != len(names):
            raise ConfigError(f"got class names {names}; expected each name once")
        if [entry.id for entry in self.entries] != list(range(1, len(names) + 1)):
            raise ConfigError("got class ids out of order; expected 1, 2, 3 ...")
        if len(names) >= IGNORE:
            raise ConfigError(f"got {len(names)} classes; expected at most {IGNORE - 1}")

    @classmethod
    def named(cls, names: Sequence[str], colours: Sequence[str | None] = ()) -> "ClassTable":
        """Table of these names; colours left out are taken from a fixed palette.

        Raises
        ------
        ConfigError
            If a name is empty or occurs twice, or a colour is not ``#rrggbb``.
        """
        given = [*colours, *[None] * (len(names) - len(colours))]
        entries = []
        for index, (name, colour) in enumerate(zip(names, given, strict=True)):
            if not name.strip():
                raise ConfigError("got an empty class name; expected some text")
            chosen = colour or _PALETTE[index % len(_PALETTE)]
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", chosen):
                raise ConfigError(f"class {name!r}: got colour {chosen!r}; expected '#rrggbb'")
            entries.append(ClassEntry(index + 1, name, chosen.lower()))
        return cls(tuple(entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in table order."""
        return tuple(entry.name for entry in self.entries)

    def id_of(self, name: str) -> int:
        """Id of the class with this name.

        Raises
        ------
        ConfigError
            If the table has no such class.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry.id
        raise ConfigError(f"got class {name!r}; expected one of {', '.join(self.names)}")

    def to_json(self) -> list[dict[str, str]]:
        """Names and colours in table order, as plain JSON values."""
        return [{"name": entry.name, "colour": entry.colour} for entry in self.entries]

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, str]]) -> "ClassTable":
        """Inverse of `to_json`."""
        return cls.named([row["name"] for row in rows], [row.get("colour") for row in rows])
