"""Owns the recipe section for rounds of hard-example mining."""

from typing import Annotated

from pydantic import Field

from wsi_seg.config.loss import LossConfig
from wsi_seg.config.section import Section, Unit


class RoundsConfig(Section):
    """Rounds of hard-example mining after the first training.

    Each fold starts from its network of the previous round, and draws part of its patches where the
    out-of-fold predictions were wrong; phases run in the first training only. Needs
    ``data.folds``.
    """

    count: int = Field(default=2, ge=1, le=20)
    """Number of rounds after the first training."""
    hard_negatives: Annotated[float, Unit("fraction of an epoch")] = Field(default=0.3, gt=0, lt=1)
    """Fraction of patches drawn at hard examples; the other layers share the rest in proportion."""
    missed: bool = True
    """Also mine objects that were missed entirely."""
    least: float = Field(default=0.5, gt=0, lt=1)
    """Minimum probability of a false positive."""
    ring_um: Annotated[float, Unit("um")] = Field(default=50.0, ge=0)
    """Width of the margin around ground truth in which nothing counts as a false positive."""
    loss: LossConfig | None = None
    """Loss of the last round; null keeps the recipe's loss."""
