"""Owns the recipe section for phases: the changes that each makes to the recipe."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from wsi_seg.config.section import Section, Unit

Changes = dict[str, JsonValue]

# Keys of the model that determine its layers.
_FIXED = {"architecture", "encoder", "weights", "decoder_attention", "full_resolution_skip"}

# Sections that a phase replaces as a whole, because their keys depend on each other.
_WHOLE = {"loss", "schedule", "mix"}


class PhaseConfig(Section):
    """One stage of a run. It starts from the best network of the previous stage.

    All keys but ``name`` are keys of the recipe with their values in this stage. Sections are
    merged key by key; ``loss``, ``schedule`` and ``sampling.mix`` are replaced as a whole. The
    optimiser and the schedule are reset.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Name of the stage, and of its subfolder of the run."""
    mpp: Annotated[float | None, Unit("um per pixel")] = None
    """Changes ``mpp``."""
    patch_px: Annotated[int | None, Unit("pixels")] = None
    """Changes ``patch_px``."""
    augment: JsonValue = None
    """Changes ``augment``."""
    sampling: Changes | None = None
    """Changes keys of ``sampling``."""
    model: Changes | None = None
    """Changes keys of ``model`` that do not change its layers."""
    loss: Changes | None = None
    """Replaces ``loss``."""
    optimizer: Changes | None = None
    """Changes keys of ``optimizer``."""
    schedule: Changes | None = None
    """Replaces ``schedule``."""
    train: Changes | None = None
    """Changes keys of ``train``."""

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
        """Omit unset keys, because a null would change the recipe."""
        values: Changes = handler(self)
        return {key: value for key, value in values.items() if key in self.model_fields_set}

    def applied_to(self, recipe: Mapping[str, JsonValue]) -> Changes:
        """Return the values of a recipe with the changes of this stage."""
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
