"""Owns the sections of a recipe that say what is learned from: classes and slides."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from wsi_seg.classes import ClassMode, ClassTable
from wsi_seg.config.section import Section, Unit


class ClassConfig(Section):
    """One structure to segment."""

    name: str
    """Name of the class, as annotations spell it unless ``from`` says otherwise."""
    colour: str | None = None
    """Colour ``#rrggbb``; null takes one from a palette."""
    merged: tuple[str, ...] = Field(default=(), alias="from")
    """Names in the annotations that are all this class; an empty list is ``name`` alone."""
    weight: float = Field(default=1.0, gt=0)
    """How much it counts in the loss; in cross-entropy of exclusive classes its pixels, where those
    of the background count 1."""


class ClassesConfig(Section):
    """Structures to segment. A bare list is its ``table``."""

    mode: ClassMode | None = None
    """``exclusive``: a pixel is of one class or background, decided by softmax. ``overlapping``: it
    may be of several, each decided by a sigmoid. Null is ``exclusive`` for several classes, and
    ``overlapping``, which is one sigmoid then, for one."""
    table: tuple[ClassConfig, ...] = Field(min_length=1)
    """The classes, in the order of the model's output channels."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Take the bare list too, which `load_recipe` reads as the table."""
        section = handler(core_schema)
        table = handler.resolve_ref_schema(section)["properties"]["table"]
        rows = {key: table[key] for key in ("type", "items", "minItems")}
        return {"anyOf": [section, rows]}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def is_exclusive(self) -> bool:
        """Whether a pixel has one class at most."""
        return self.mode == "exclusive" or (self.mode is None and len(self.table) > 1)

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each class counts in the loss."""
        return tuple(one.weight for one in self.table)

    def named(self) -> ClassTable:
        """Classes with their ids and colours.

        Raises
        ------
        ConfigError
            If a name is empty or occurs twice, or a colour is not one.
        """
        return ClassTable.named(
            [one.name for one in self.table],
            [one.colour for one in self.table],
            [one.merged for one in self.table],
            "exclusive" if self.is_exclusive else "overlapping",
        )


class DataConfig(Section):
    """Which slides are learned from, and which are held out."""

    stores: tuple[Path, ...] = Field(min_length=1)
    """Collections made by ``wsi-seg tile``."""
    label: str = "annotations"
    """Name of the label that is the truth."""
    train: tuple[str, ...] | None = None
    """Names of slides to learn from; null takes every slide that has the label and is not held
    out."""
    validation: tuple[str, ...] | Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Names of the slides held out, or the fraction of slides that is drawn by ``seed``, with as
    much foreground as the others; 0 holds out no slide, and then the last epoch counts as the
    best."""
    folds: Annotated[int | None, Field(ge=2)] = None
    """Number of folds of a cross-validation, which replaces ``validation``; null trains once."""
    groups: Path | None = None
    """Table (csv with columns slide, group) of slides that belong together, such as those of one
    patient; a group is on one side of every split."""
    group_pattern: str | None = None
    """The same from the names: a regular expression whose first part in brackets is the group,
    for example ``([^-]+)-``."""
    context_slices: Annotated[int, Unit("slices")] = Field(default=0, ge=0, le=32)
    """Slices of a volume on either side that a slice is seen with, each as one channel of grey
    (2.5-D), the last one repeated past the ends; 0 sees RGB."""
    context_step_mm: Annotated[float | None, Field(gt=0), Unit("mm")] = None
    """From one of these slices to the next, whatever the distance of slices in a volume: the
    nearest are taken. Null takes the neighbours as they are."""
    pseudo_weight: float = Field(default=0.5, ge=0)
    """Weight in the loss of pixels on slides whose labels ``wsi-seg pseudo`` wrote; those drawn
    by people weigh 1."""

    @field_validator("group_pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and re.compile(pattern).groups < 1:
                raise ValueError("expected a part in brackets, which names the group")
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _held_out_once(self) -> Self:
        if self.folds is not None and isinstance(self.validation, tuple):
            raise ValueError(
                "got both folds and names in validation; expected one of them, because folds "
                "hold every slide out in turn"
            )
        return self
