"""Owns the recipe sections for the optimiser and the learning-rate schedule."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit

Positive = Annotated[float, Field(gt=0)]
_Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """Optimiser and its settings; null is the optimiser's own default."""

    name: Literal["sgd", "adam", "adamw", "radam", "adabelief", "ranger", "lion"] = "adamw"
    """Optimiser from torch or pytorch-optimizer; all but ``sgd`` and ``adam`` decouple weight
    decay from the gradient."""
    lr: Positive = 1e-3
    """Maximum learning rate."""
    encoder_lr: Positive | None = None
    """Maximum learning rate of the encoder; null is ``lr``."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay, for all weights."""
    momentum: _Beta | None = None
    """Momentum (``sgd`` only); null is 0.9, or that of ``one_cycle``."""
    betas: tuple[_Beta, _Beta] | None = None
    """Decay rates of the moment estimates (all but ``sgd``); with null, ``one_cycle`` sets the
    first."""
    eps: Positive | None = None
    """Term added to denominators for numerical stability (all but ``sgd`` and ``lion``)."""
    lookahead: bool = False
    """Every 5 steps, interpolate half-way back to the previous slow weights (Zhang et al., 2019);
    ``ranger`` has it built in."""
    clip_norm: Positive | None = None
    """Maximum norm of the gradients of all parameters; null does not clip."""
    agc: Positive | None = None
    """Maximum ratio of each unit's gradient norm to its weight norm (adaptive gradient clipping,
    Brock et al., 2021); null does not clip."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        sgd = self.name == "sgd"
        wrong = [
            ("momentum", self.momentum is not None and not sgd),
            ("betas", self.betas is not None and sgd),
            ("eps", self.eps is not None and (sgd or self.name == "lion")),
            ("lookahead", self.lookahead and self.name == "ranger"),
        ]
        for key, misplaced in wrong:
            if misplaced:
                raise ValueError(f"{self.name} takes no {key}; leave it out")
        return self

    @property
    def sets_momentum(self) -> bool:
        """Whether the momentum is set, and not left to the optimiser or the schedule."""
        return self.momentum is not None or self.betas is not None


# Options of each schedule with their defaults.
_OPTIONS: dict[str, dict[str, float | None]] = {
    "constant": {"warmup_epochs": 0.0},
    "step": {"epochs": 10.0, "factor": 0.1, "warmup_epochs": 0.0},
    "cosine": {"epochs": None, "min_lr": 0.0, "warmup_epochs": 0.0},
    "warm_restarts": {"epochs": 1.0, "multiply": 2, "min_lr": 0.0, "warmup_epochs": 0.0},
    "cyclic": {"epochs": 2.0, "min_lr": 0.0, "warmup_epochs": 0.0},
    "one_cycle": {"rise": 0.1},
    "plateau": {"factor": 0.1, "patience": 2, "threshold": 1e-4, "min_lr": 0.0},
}


class ScheduleConfig(Section):
    """Learning-rate schedule; null is the schedule's own default.

    ``one_cycle`` rises over the fraction ``rise`` of the run, then falls to 0 along a cosine;
    meanwhile, momentum (or the first of ``betas``) falls from 0.95 to 0.85 and rises again, unless
    the recipe sets it.
    ``cosine`` falls to ``min_lr`` over ``epochs`` (null: the whole run), and rises again if the
    run is longer. ``warm_restarts`` falls in the same way, then restarts with a period
    ``multiply`` times as long. ``cyclic`` rises from ``min_lr`` to ``lr`` and falls back within
    ``epochs``. ``step`` multiplies by ``factor`` every ``epochs``. ``plateau`` multiplies by
    ``factor`` when ``train.monitor`` has not improved by ``threshold`` for more than ``patience``
    validations. All but ``plateau`` are updated after each step.
    """

    name: Literal[
        "constant", "step", "cosine", "warm_restarts", "cyclic", "one_cycle", "plateau"
    ] = "one_cycle"
    """Schedule of the learning rate."""
    epochs: Annotated[Positive | None, Unit("epochs")] = None
    """Period: null is the whole run for ``cosine``, 10 for ``step``, 2 for ``cyclic`` and 1 for
    ``warm_restarts``."""
    multiply: Annotated[int | None, Field(ge=1)] = None
    """Factor by which each period of ``warm_restarts`` is longer than the previous; null is 2."""
    factor: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Factor of ``step`` and ``plateau``; null is 0.1."""
    patience: Annotated[int | None, Field(ge=0), Unit("validations")] = None
    """Validations without improvement that ``plateau`` tolerates; null is 2."""
    threshold: Annotated[float | None, Field(ge=0)] = None
    """Smallest change that ``plateau`` counts as an improvement; null is 0.0001."""
    min_lr: Annotated[float | None, Field(ge=0)] = None
    """Minimum learning rate; null is 0."""
    rise: Annotated[float | None, Field(gt=0, lt=1), Unit("fraction of the run")] = None
    """Length of the rise of ``one_cycle``; null is 0.1."""
    warmup_epochs: Annotated[float | None, Field(ge=0), Unit("epochs")] = None
    """Length of the linear warm-up from a thousandth of the learning rate; null is 0."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        takes = _OPTIONS[self.name]
        for key, value in self:
            if key != "name" and value is not None and key not in takes:
                raise ValueError(f"{self.name} takes no {key}; it takes {', '.join(takes) or '-'}")
        return self

    def option(self, key: str) -> float:
        """Return an option of the schedule, or its default if it is null."""
        value = getattr(self, key)
        default = _OPTIONS[self.name][key]
        return float(default or 0.0) if value is None else float(value)
