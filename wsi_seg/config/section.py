"""Owns what all sections of a recipe share: strict, immutable, no key unknown."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Part of a whole, 0 to 1.
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Part of a recipe: unknown keys refused, values immutable and never converted by guess."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True
    )
