"""Owns the section of a recipe that says how long and how fast it trains."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit


class TrainConfig(Section):
    """How long, how fast and on what it trains."""

    epochs: Annotated[int, Unit("epochs")] = Field(default=8, ge=1)
    """Largest number of epochs."""
    batch_size: Annotated[int, Unit("patches")] = Field(default=16, ge=1)
    """Patches per step and device."""
    accumulate: Annotated[int, Unit("batches")] = Field(default=1, ge=1)
    """Batches whose gradients are averaged before a step."""
    ema: Annotated[float | None, Field(gt=0, lt=1)] = 0.99
    """Decay of a moving average of the weights, which is what is validated and kept; null keeps
    the weights themselves."""
    swa_from: Annotated[float | None, Field(ge=0, lt=1), Unit("part of the epochs")] = None
    """When averaging the weights with equal parts (SWA) starts, in place of ``ema``; null does
    not."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic; ``auto`` is bf16 where that is faster: on GPUs that have it, and on CPUs with
    AMX."""
    devices: Annotated[int, Unit("processes")] = Field(default=1, ge=1)
    """Processes per machine that train together, on one GPU each where there are GPUs."""
    nodes: Annotated[int, Unit("machines")] = Field(default=1, ge=1)
    """Machines of ``devices`` processes each."""
    workers: Annotated[int, Unit("processes")] = Field(default=1, ge=0, le=256)
    """Processes per device that load patches; 0 loads in the training process."""
    augment_on: Literal["auto", "workers", "device"] = "auto"
    """Where patches are augmented: in the ``workers``, or on the ``device`` in batches, as far as
    it can, which is what ``auto`` does on GPUs."""
    max_minutes: Annotated[float | None, Field(gt=0), Unit("minutes")] = None
    """When training ends, validations on the way included and the last one not; ``one_cycle`` is
    scaled to the steps that are measured to fit. Null sets no limit."""
    monitor: Literal["dice", "dice_slide", "dice_objects", "loss", "soft_dice", "triplet"] = "dice"
    """Figure of the slides held out that decides which network is best, and so what is kept, when
    ``plateau`` and ``early_stop`` act and what the next phase starts from. ``dice`` is that of
    all pixels pooled, averaged over classes. ``dice_slide`` is the mean over slides, where a class
    that is neither there nor found counts 1 and one found falsely 0, so that finding nothing
    pays where most slides are empty; ``dice_objects`` the mean over slides that show the
    class. ``loss`` is the cross-entropy; ``soft_dice`` the mean of 1 - Dice loss over slides that
    show the class; ``triplet``, which exclusive classes have not, the best ``dice_slide`` of rules
    with two thresholds and an area. Slices of a volume count as one slide."""
    early_stop: Annotated[int | None, Field(ge=1), Unit("validations")] = None
    """How long without gain training goes on; null never ends early."""
    validate_every: Annotated[int, Unit("epochs")] = Field(default=1, ge=1)
    """From one validation to the next; the last epoch is always validated."""
    validation_overlap: Annotated[float, Unit("part of the side")] = Field(
        default=0.25, ge=0, le=0.9
    )
    """Overlap of tiles when validation slides are predicted."""
    save_minutes: Annotated[float, Unit("minutes")] = Field(default=5.0, ge=0)
    """Longest time between two saved states of the run. The end of an epoch is saved too, if that
    takes no more than a twentieth of the time."""
    top_k: Annotated[int, Unit("networks")] = Field(default=1, ge=1)
    """Best networks that are kept."""
    tensorboard: bool = False
    """Also log for TensorBoard, which must be installed."""

    @model_validator(mode="before")
    @classmethod
    def _one_average(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("swa_from") is None:
            return values
        if values.get("ema") is not None:
            raise ValueError("got both ema and swa_from; expected one of them")
        return values | {"ema": None}
