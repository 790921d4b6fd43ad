"""Owns the phases of a recipe: what each changes of the recipe around it."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from wsi_seg.config.section import Section

Changes = dict[str, JsonValue]

# Keys of the model that decide its layers.
_FIXED = {"architecture", "encoder", "weights", "decoder_attention", "full_resolution_skip"}

# Sections that a phase replaces whole: their keys belong together.
_WHOLE = {"loss", "schedule", "mix"}


class PhaseConfig(Section):
    """One stage of a run. It starts from the best network of the stage before it.

    All but ``name`` are keys of the recipe with what they are in this stage. Sections change key
    by key; ``loss``, ``schedule`` and ``sampling.mix`` are replaced whole. Optimiser and schedule
    start again.

    Parameters
    ----------
    name
        Its folder inside the run's.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    mpp: float | None = None
    patch_px: int | None = None
    augment: JsonValue = None
    sampling: Changes | None = None
    model: Changes | None = None
    loss: Changes | None = None
    optimizer: Changes | None = None
    schedule: Changes | None = None
    train: Changes | None = None

    @model_validator(mode="after")
    def _same_network(self) -> Self:
        fixed = sorted(_FIXED & set(self.model or ()))
        if fixed:
            raise ValueError(
                f"phase {self.name} changes model.{', model.'.join(fixed)}; expected the same "
                "network in every phase, because each starts from the one before"
            )
        return self

    @model_serializer(mode="wrap")
    def _only_changes(self, handler: SerializerFunctionWrapHandler) -> Changes:
        """Leave out what the phase does not change, which null would do."""
        values: Changes = handler(self)
        return {key: value for key, value in values.items() if key in self.model_fields_set}

    def applied_to(self, recipe: Mapping[str, JsonValue]) -> Changes:
        """Values of a recipe as they are in this stage."""
        changes = self.model_dump(mode="json", exclude={"name"})
        return _merged(recipe, changes)


def _merged(values: Mapping[str, JsonValue], changes: Mapping[str, JsonValue]) -> Changes:
    merged = dict(values)
    for key, change in changes.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(change, dict) and key not in _WHOLE:
            merged[key] = _merged(before, change)
        else:
            merged[key] = change
    return merged
