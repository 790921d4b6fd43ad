"""Owns the recipe section for the training loop: its length, hardware and validation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit


class TrainConfig(Section):
    """Length, hardware and validation of the training."""

    epochs: Annotated[int, Unit("epochs")] = Field(default=8, ge=1)
    """Maximum number of epochs."""
    batch_size: Annotated[int, Unit("patches")] = Field(default=16, ge=1)
    """Patches per step and device."""
    accumulate: Annotated[int, Unit("batches")] = Field(default=1, ge=1)
    """Batches whose gradients are accumulated (averaged) before each step."""
    ema: Annotated[float | None, Field(gt=0, lt=1)] = 0.99
    """Decay of an exponential moving average of the weights, which is validated and saved; null
    uses the weights themselves."""
    swa_from: Annotated[float | None, Field(ge=0, lt=1), Unit("fraction of the epochs")] = None
    """Start of stochastic weight averaging (SWA), which replaces ``ema``; null disables it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the arithmetic; ``auto`` is bf16 where that is faster: on GPUs that support it,
    and on CPUs with AMX."""
    devices: Annotated[int, Unit("processes")] = Field(default=1, ge=1)
    """Processes per machine that train together, each on its own GPU if there are GPUs."""
    nodes: Annotated[int, Unit("machines")] = Field(default=1, ge=1)
    """Machines, with ``devices`` processes each."""
    workers: Annotated[int, Unit("processes")] = Field(default=1, ge=0, le=256)
    """Data-loading processes per device; 0 loads in the training process."""
    augment_on: Literal["auto", "workers", "device"] = "auto"
    """Where patches are augmented: in the ``workers``, or in batches on the ``device`` for the
    steps that support it; ``auto`` is ``device`` on GPUs."""
    max_minutes: Annotated[float | None, Field(gt=0), Unit("minutes")] = None
    """Time limit of the training, including all validations but the last; ``one_cycle`` is scaled
    to the number of steps that fit, as measured. Null sets no limit."""
    monitor: Literal["dice", "dice_slide", "dice_objects", "loss", "soft_dice", "triplet"] = "dice"
    """Metric on the held-out slides that selects the best network, and on which ``plateau`` and
    ``early_stop`` act. ``dice`` pools all pixels and averages over classes. ``dice_slide`` is the
    mean over slides, where a class that is absent and not predicted counts 1 and a false positive
    0, so that predicting nothing scores well if most slides are empty; ``dice_objects`` is the mean
    over slides that contain the class. ``loss`` is the cross-entropy; ``soft_dice`` the mean of
    1 - Dice loss over slides that contain the class; ``triplet``, for overlapping classes only,
    the best ``dice_slide`` over rules of two thresholds and an area. The slices of a volume count
    as one slide."""
    early_stop: Annotated[int | None, Field(ge=1), Unit("validations")] = None
    """Validations without improvement before training stops; null never stops early."""
    validate_every: Annotated[int, Unit("epochs")] = Field(default=1, ge=1)
    """Interval between validations; the last epoch is always validated."""
    validation_overlap: Annotated[float, Unit("fraction of the side")] = Field(
        default=0.25, ge=0, le=0.9
    )
    """Overlap of tiles when validation slides are predicted."""
    save_minutes: Annotated[float, Unit("minutes")] = Field(default=5.0, ge=0)
    """Maximum time between two saved states of the run. The end of an epoch is saved too if saving
    takes at most a twentieth of the run's time."""
    top_k: Annotated[int, Unit("networks")] = Field(default=1, ge=1)
    """Number of best networks to keep."""
    tensorboard: bool = False
    """Also write TensorBoard logs; the package must be installed."""

    @model_validator(mode="before")
    @classmethod
    def _one_average(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("swa_from") is None:
            return values
        if values.get("ema") is not None:
            raise ValueError("got both ema and swa_from; expected one of them")
        return values | {"ema": None}
