"""Owns the sections of a recipe that say where patches are drawn."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Share


class MixConfig(Section):
    """Share of an epoch's patches that each layer of the importance map gets; they sum to 1."""

    objects: Share = 0
    tissue: Share = 0
    background: Share = 0

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.objects + self.tissue + self.background
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares sum to {total:g}; expected 1")
        return self


class SamplingConfig(Section):
    """Where patches are drawn.

    Parameters
    ----------
    mix
        Shares of the layers.
    patches_per_epoch
        Rounded up to whole batches; null draws each object once, the other layers in proportion.
    cell_um
        Side of a cell of the importance map in micrometres.
    cell_px
        The same in px of level 0, used where ``mpp`` is null.
    """

    mix: MixConfig = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    patches_per_epoch: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 1000
    cell_um: float = Field(default=32.0, gt=0)
    cell_px: int = Field(default=64, ge=1)
