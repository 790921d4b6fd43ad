"""Owns the recipe sections for the training data: classes and slides."""

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
    """Name of the class, which is also its name in the annotations unless ``from`` is set."""
    colour: str | None = None
    """Colour ``#rrggbb``; null takes one from a palette."""
    merged: tuple[str, ...] = Field(default=(), alias="from")
    """Names in the annotations that are merged into this class; an empty list is ``name`` only."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the class in the loss; in the cross-entropy of exclusive classes, the weight of its
    pixels relative to background."""


class ClassesConfig(Section):
    """Structures to segment. A plain list is read as its ``table``."""

    mode: ClassMode | None = None
    """``exclusive``: a pixel belongs to one class or to background (softmax). ``overlapping``: a
    pixel may belong to several classes (a sigmoid each). Null is ``exclusive`` for several classes
    and ``overlapping`` for a single class."""
    table: tuple[ClassConfig, ...] = Field(min_length=1)
    """The classes, in the order of the model's output channels."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Allow a plain list, which `load_recipe` reads as the table."""
        section = handler(core_schema)
        table = handler.resolve_ref_schema(section)["properties"]["table"]
        rows = {key: table[key] for key in ("type", "items", "minItems")}
        return {"anyOf": [section, rows]}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def is_exclusive(self) -> bool:
        """Whether a pixel has at most one class."""
        return self.mode == "exclusive" or (self.mode is None and len(self.table) > 1)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each class in the loss."""
        return tuple(one.weight for one in self.table)

    def named(self) -> ClassTable:
        """Return the class table with ids and colours.

        Raises
        ------
        ConfigError
            If a name is empty or occurs twice, or a colour is invalid.
        """
        return ClassTable.named(
            [one.name for one in self.table],
            [one.colour for one in self.table],
            [one.merged for one in self.table],
            "exclusive" if self.is_exclusive else "overlapping",
        )


class DataConfig(Section):
    """Which slides are used for training, and which are held out."""

    stores: tuple[Path, ...] = Field(min_length=1)
    """Collections made by ``wsi-seg tile``."""
    label: str = "annotations"
    """Name of the label used as ground truth."""
    train: tuple[str, ...] | None = None
    """Names of the training slides; null takes every slide that has the label and is not held
    out."""
    validation: tuple[str, ...] | Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Names of the held-out slides, or the fraction of slides to hold out, drawn with ``seed`` and
    balanced by foreground; with 0, no slide is held out and the last epoch counts as the best."""
    folds: Annotated[int | None, Field(ge=2)] = None
    """Number of cross-validation folds, which replace ``validation``; null trains once."""
    groups: Path | None = None
    """Table (csv with columns slide, group) of slides that belong together, such as those of one
    patient; a group is never split between training and validation."""
    group_pattern: str | None = None
    """Alternative to ``groups``: a regular expression whose first capturing group, matched on the
    slide's name, is its group; for example ``([^-]+)-``."""
    context_slices: Annotated[int, Unit("slices")] = Field(default=0, ge=0, le=32)
    """Neighbouring slices of a volume on either side of each slice (2.5-D), each as one grey
    channel; the first and last slice are repeated past the ends. 0 uses RGB."""
    context_step_mm: Annotated[float | None, Field(gt=0), Unit("mm")] = None
    """Distance between context slices, whatever the slice spacing of the volume; the nearest
    slices are taken. Null takes adjacent slices."""
    pseudo_weight: float = Field(default=0.5, ge=0)
    """Weight in the loss of pixels on slides with pseudo-labels from ``wsi-seg pseudo``; manual
    annotations have weight 1."""

    @field_validator("group_pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and re.compile(pattern).groups < 1:
                raise ValueError("expected a capturing group in brackets, which names the group")
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
