"""Owns the base class of recipe sections: strict, immutable, no unknown keys.

The string below a key is its documentation, shown by `wsi_seg.config.describe` and in the JSON
schema.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

# Fraction of a whole, 0 to 1.
Share = Annotated[float, Field(ge=0, le=1)]


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"got {list(ends)}; expected the smaller number first")
    return ends


# Of a range: its smallest and its largest number.
Rising = AfterValidator(_rising)


@dataclass(frozen=True, slots=True)
class Unit:
    """Documented unit of a key: ``Annotated[float, Unit("um")]``."""

    name: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the unit to the key's schema."""
        return {**handler(core_schema), "unit": self.name}


class Section(BaseModel):
    """Section of a recipe: unknown keys are refused, values are immutable and never coerced."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )
