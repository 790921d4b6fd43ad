"""Owns what all sections of a recipe share: strict, immutable, no key unknown, each key explained.

The string below a key is its documentation: `wsi_seg.config.describe` and the JSON schema show it.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

# Part of a whole, 0 to 1.
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of a key, for its documentation: ``Annotated[float, Unit("um")]``."""

    name: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the unit to the schema of the key."""
        return {**handler(core_schema), "unit": self.name}


class Section(BaseModel):
    """Part of a recipe: unknown keys refused, values immutable and never converted by guess."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )
