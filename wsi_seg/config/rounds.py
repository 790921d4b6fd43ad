"""Owns the section of a recipe that says how often hard places are mined and learned from again."""

from typing import Annotated

from pydantic import Field

from wsi_seg.config.loss import LossConfig
from wsi_seg.config.section import Section, Unit


class RoundsConfig(Section):
    """Rounds of hard mining after the first.

    Each starts from the networks of the round before, fold by fold, and draws part of its patches
    where they were wrong on slides that they had not seen; phases are gone through in the first
    round alone. Rounds need ``data.folds``.
    """

    count: int = Field(default=2, ge=1, le=20)
    """Rounds after the first."""
    hard_negatives: Annotated[float, Unit("part of an epoch")] = Field(default=0.3, gt=0, lt=1)
    """Share of the draws that hard places get; the other layers share the rest as before."""
    missed: bool = True
    """Whether structures that were missed as a whole are hard places too."""
    least: float = Field(default=0.5, gt=0, lt=1)
    """Least probability of a false positive."""
    ring_um: Annotated[float, Unit("um")] = Field(default=50.0, ge=0)
    """Width of a ring around the truth in which nothing is a false positive."""
    loss: LossConfig | None = None
    """Loss of the last round; null keeps that of the others."""
