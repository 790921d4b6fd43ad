"""Owns the sections of a recipe that say what is learned from: classes and slides."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from wsi_seg.config.section import Section


class ClassConfig(Section):
    """One structure to segment.

    Parameters
    ----------
    name
        As annotations spell it, unless ``from`` says otherwise.
    colour
        ``#rrggbb``; null takes one from a palette.
    from
        Names in the annotations that are all this class; without any, ``name`` alone.
    """

    name: str
    colour: str | None = None
    merged: tuple[str, ...] = Field(default=(), alias="from")


class DataConfig(Section):
    """Which slides are learned from, and which are held out.

    Parameters
    ----------
    stores
        Collections made by ``wsi-seg tile``.
    label
        Name under ``labels/`` of the truth.
    train
        Names of slides; null takes every slide that has the label and is not held out.
    validation
        Names of slides, or the fraction of slides that is drawn (by ``seed``) and held out;
        0 holds out none, and then the last epoch counts as the best.
    folds
        Train so many times, each time holding out another part of the slides instead of
        ``validation``; null trains once.
    groups
        Table (csv with columns slide, group) of slides that belong together, such as those of one
        patient; they come to one side of every split.
    group_pattern
        The same from the names: a regular expression whose first part in brackets is the group,
        for example ``([^-]+)-``.
    context_slices
        Slices of a volume on either side that a slice is seen with, each as one channel of grey
        (2.5-D); past the ends the last slice is repeated. 0 sees RGB.
    pseudo_weight
        Weight in the loss of pixels on slides whose labels ``wsi-seg pseudo`` wrote; those drawn by
        people weigh 1.
    """

    stores: tuple[Path, ...] = Field(min_length=1)
    label: str = "annotations"
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] | Annotated[float, Field(ge=0, lt=1)] = 0.2
    folds: Annotated[int, Field(ge=2)] | None = None
    groups: Path | None = None
    group_pattern: str | None = None
    context_slices: int = Field(default=0, ge=0, le=32)
    pseudo_weight: float = Field(default=0.5, ge=0)

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
