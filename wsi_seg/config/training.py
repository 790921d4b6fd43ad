"""Owns the section of a recipe that says how long and how fast it trains."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsi_seg.config.section import Section


class TrainConfig(Section):
    """The run.

    Parameters
    ----------
    epochs, batch_size
        Upper limit of epochs; patches per step and device.
    accumulate
        Batches whose gradients are averaged before a step.
    ema
        Decay of a moving average of the weights, which is what is validated and kept; null keeps
        the weights themselves.
    swa_from
        From this share of the epochs on, weights are averaged with equal parts (SWA) instead.
    precision
        ``auto`` is bf16 where that is faster: on GPUs that have it, and on CPUs with AMX.
    devices, nodes
        Processes that train together, on one GPU each where there are GPUs; machines of so many.
    workers
        Processes per device that load patches; 0 loads in the training process.
    augment_on
        Where patches are augmented: in the ``workers``, or on the ``device`` in batches, as far as
        it can, which is what ``auto`` does on GPUs.
    max_minutes
        Training ends after so many minutes, validations on the way included and the last one
        not; ``one_cycle`` is scaled to the steps that are measured to fit. Null sets no limit.
    monitor
        Figure of the slides held out that decides which network is best, and so what is kept, when
        ``plateau`` and ``early_stop`` act and what the next phase starts from. ``dice`` is that of
        all pixels pooled, averaged over classes. ``dice_slide`` is the mean over slides, where a
        class that is neither there nor found counts 1 and one found falsely 0, so that finding
        nothing pays where most slides are empty; ``dice_objects`` the mean over slides that show
        the class. ``loss`` is the cross-entropy; ``triplet`` the best ``dice_slide`` of rules with
        two thresholds and an area. Slices of a volume count as one slide.
    early_stop
        Validations without gain after which training ends; null never ends early.
    validate_every
        Epochs from one validation to the next; the last epoch is always validated.
    validation_overlap
        Overlap of tiles when validation slides are predicted.
    save_minutes
        Longest time between two saved states of the run; each epoch is saved anyway.
    top_k
        Best networks that are kept.
    tensorboard
        Also log for TensorBoard, which must be installed.
    """

    epochs: int = Field(default=8, ge=1)
    batch_size: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.99
    swa_from: Annotated[float, Field(ge=0, lt=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=0, le=256)
    augment_on: Literal["auto", "workers", "device"] = "auto"
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    monitor: Literal["dice", "dice_slide", "dice_objects", "loss", "triplet"] = "dice"
    early_stop: Annotated[int, Field(ge=1)] | None = None
    validate_every: int = Field(default=1, ge=1)
    validation_overlap: float = Field(default=0.25, ge=0, le=0.9)
    save_minutes: float = Field(default=5.0, ge=0)
    top_k: int = Field(default=1, ge=1)
    tensorboard: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_average(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("swa_from") is None:
            return values
        if values.get("ema") is not None:
            raise ValueError("got both ema and swa_from; expected one of them")
        return values | {"ema": None}
