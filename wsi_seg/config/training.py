"""Owns the sections of a recipe that say how it is trained: loss, optimiser, schedule, run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section


class LossConfig(Section):
    """Weight of each loss term; 0 leaves the term out."""

    bce: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _any_term(self) -> Self:
        if self.bce + self.dice == 0:
            raise ValueError("all loss weights are 0; expected at least one above 0")
        return self


class OptimizerConfig(Section):
    """Optimiser and its settings."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class ScheduleConfig(Section):
    """How the learning rate changes over the run, step by step.

    ``one_cycle`` warms up over the first tenth and then falls to nothing along a cosine.
    """

    name: Literal["constant", "cosine", "one_cycle"] = "one_cycle"


class TrainConfig(Section):
    """The run.

    Parameters
    ----------
    epochs, batch_size
        Upper limit of epochs; patches per step.
    precision
        ``auto`` is bf16 where the hardware multiplies it natively.
    workers
        Processes that load patches; 0 loads in the training process.
    max_minutes
        No epoch is begun that would likely end later than this; null sets no limit.
    early_stop
        Validations without gain after which training ends; null never ends early.
    validate_every
        Epochs from one validation to the next; the last epoch is always validated.
    validation_overlap
        Overlap of tiles when validation slides are predicted.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=8, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: int = Field(default=1, ge=0, le=256)
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    early_stop: Annotated[int, Field(ge=1)] | None = None
    validate_every: int = Field(default=1, ge=1)
    validation_overlap: float = Field(default=0.25, ge=0, le=0.9)
