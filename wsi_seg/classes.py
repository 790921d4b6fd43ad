"""Owns the class table: id, name and colour of each segmented structure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import ConfigError

BACKGROUND = 0
IGNORE = 255

# Annotations of this class are drawn as 255: ignored in training and scores.
IGNORE_NAME = "ignore"

# Annotations of this class erase what earlier ones drew; LabelMe's name for background.
BACKGROUND_NAME = "_background_"

_SPECIAL_NAMES = (
    (re.compile(r"__ignore__|ignore\*(: .*)?", re.IGNORECASE), IGNORE_NAME),  # LabelMe's, QuPath's
    (re.compile(r"__?background__?", re.IGNORECASE), BACKGROUND_NAME),
)

# Map inside a label with ``1 - weight`` of each pixel in training, in steps of 1/255.
DOUBT = "doubt"

# Whether a pixel has at most one class, or any number of classes; see `ClassTable`.
ClassMode = Literal["exclusive", "overlapping"]

# Okabe and Ito's palette (2008) for colour-blind readers, without black.
_PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")


def special_class(name: str) -> str:
    """Map the special names of LabelMe and QuPath to ours; return other names unchanged.

    Examples
    --------
    >>> special_class("__ignore__"), special_class("Ignore*"), special_class("gland")
    ('ignore', 'ignore', 'gland')
    """
    return next((own for spelled, own in _SPECIAL_NAMES if spelled.fullmatch(name)), name)


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One structure to segment.

    Parameters
    ----------
    id
        Value in label maps, 1 to 254; 0 is background and 255 is ignore.
    name
        Name in annotations.
    colour
        ``#rrggbb``.
    merged
        Names in annotations that are combined to this class; empty for only ``name``.
    """

    id: int
    name: str
    colour: str
    merged: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names in annotations that belong to this class."""
        return self.merged or (self.name,)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        return (int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16))


@dataclass(frozen=True, slots=True)
class ClassTable:
    """All classes of a task, in the order of the model's output channels.

    Class ids are 1, 2, 3 ... in table order, so channel ``c`` of a prediction belongs to id
    ``c + 1``.

    Parameters
    ----------
    entries
        The classes; see `ClassTable.named`.
    mode
        ``exclusive``: a pixel is background or one class. A network outputs a logit for background,
        then one per class; probabilities are their softmax.
        ``overlapping``: each class has its own sigmoid, and its own plane in labels.
        None: each class has its own sigmoid, and a label has one id per pixel. This is the mode of
        a single class, of labels by default, and of tables from before modes existed.

    Examples
    --------
    >>> [(entry.id, entry.name) for entry in ClassTable.named(["gland", "vessel"])]
    [(1, 'gland'), (2, 'vessel')]
    """

    entries: tuple[ClassEntry, ...]
    mode: ClassMode | None = None

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) != len(names):
            raise ConfigError(f"got class names {names}; expected each name once")
        parts = [part for entry in self.entries for part in entry.parts]
        if len(set(parts)) != len(parts):
            raise ConfigError(f"got classes made of {parts}; expected each name in one class")
        if [entry.id for entry in self.entries] != list(range(1, len(names) + 1)):
            raise ConfigError("got class ids out of order; expected 1, 2, 3 ...")
        if len(names) >= IGNORE:
            raise ConfigError(f"got {len(names)} classes; expected at most {IGNORE - 1}")

    @classmethod
    def named(
        cls,
        names: Sequence[str],
        colours: Sequence[str | None] = (),
        merged: Sequence[Sequence[str]] = (),
        mode: ClassMode | None = None,
    ) -> "ClassTable":
        """Make a table from class names; a single class cannot overlap, so its mode is None.

        Parameters
        ----------
        names
            Names in the order of the ids.
        colours
            ``#rrggbb``; missing ones are taken from a fixed palette.
        merged
            Names in annotations that are combined to each class; empty for its own name.
        mode
            See `ClassTable`.

        Raises
        ------
        ConfigError
            If a name is empty or occurs twice, or a colour is not ``#rrggbb``.
        """
        given = [*colours, *[None] * (len(names) - len(colours))]
        parts = [*merged, *[()] * (len(names) - len(merged))]
        entries = []
        for index, (name, colour) in enumerate(zip(names, given, strict=True)):
            if not name.strip():
                raise ConfigError("got an empty class name; expected some text")
            chosen = colour or _PALETTE[index % len(_PALETTE)]
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", chosen):
                raise ConfigError(f"class {name!r}: got colour {chosen!r}; expected '#rrggbb'")
            entries.append(ClassEntry(index + 1, name, chosen.lower(), tuple(parts[index])))
        alone = mode == "overlapping" and len(entries) == 1
        return cls(tuple(entries), None if alone else mode)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order of the ids."""
        return tuple(entry.name for entry in self.entries)

    @property
    def is_exclusive(self) -> bool:
        """Whether probabilities are a softmax over background and classes."""
        return self.mode == "exclusive"

    @property
    def planes(self) -> int | None:
        """Number of planes of a label: one per overlapping class, or None for one id per pixel.

        Plane ``c`` is 0, id ``c + 1``, or 255 where that class is ignored.
        """
        return len(self.entries) if self.mode == "overlapping" else None

    @property
    def outputs(self) -> int:
        """Output channels of a network: one per class, after one for background if exclusive."""
        return len(self.entries) + self.is_exclusive

    def id_of(self, name: str) -> int:
        """Return the id of the class with a name.

        Raises
        ------
        ConfigError
            If the table has no such class.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry.id
        raise ConfigError(f"got class {name!r}; expected one of {', '.join(self.names)}")

    def absent_from(self, known: "ClassTable") -> tuple[str, ...]:
        """Return the names of classes, or of their parts, that the table ``known`` lacks."""
        return tuple(
            part
            for entry in self.entries
            if entry.name not in known.names
            for part in entry.parts
            if part not in known.names
        )

    def recoding(self, known: "ClassTable") -> NDArray[np.uint8]:
        """Return the lookup table, ``(256,)`` uint8, from ids of ``known`` to ids of this table.

        Classes that this table lacks become background; ignored pixels stay ignored.
        """
        table = np.zeros(256, dtype=np.uint8)
        table[IGNORE] = IGNORE
        for entry in self.entries:
            for name in {entry.name, *entry.parts} & set(known.names):
                table[known.id_of(name)] = entry.id
        return table

    def to_json(self) -> list[dict[str, object]] | dict[str, object]:
        """Return names, colours and merged names in order of the ids, as JSON values.

        If the table has a mode, a mapping with ``mode`` and ``table``.
        """
        rows: list[dict[str, object]] = [
            {"name": entry.name, "colour": entry.colour}
            | ({"from": list(entry.merged)} if entry.merged else {})
            for entry in self.entries
        ]
        return rows if self.mode is None else {"mode": self.mode, "table": rows}

    @classmethod
    def from_json(cls, values: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> "ClassTable":
        """Make a table from ``values``, the result of `to_json`."""
        rows = values["table"] if isinstance(values, Mapping) else values
        return cls.named(
            [row["name"] for row in rows],
            [row.get("colour") for row in rows],
            [row.get("from", ()) for row in rows],
            values["mode"] if isinstance(values, Mapping) else None,
        )
