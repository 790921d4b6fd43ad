"""Owns the recipe model: the settings of a training run, section by section."""

import json
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from wsi_seg.classes import ClassTable
from wsi_seg.config.augment import Augment, MixBatchesConfig
from wsi_seg.config.data import ClassesConfig, DataConfig
from wsi_seg.config.ensemble import EnsembleConfig
from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.config.loss import EXCLUSIVE, INDEPENDENT, BceTerm, LossConfig, Term
from wsi_seg.config.model import ModelConfig
from wsi_seg.config.optimizer import OptimizerConfig, ScheduleConfig
from wsi_seg.config.phase import PhaseConfig
from wsi_seg.config.rounds import RoundsConfig
from wsi_seg.config.sampling import SamplingConfig
from wsi_seg.config.section import Section, Unit
from wsi_seg.config.training import TrainConfig
from wsi_seg.notebook import lines_html

# See `reading.view.View`.
Resize = Literal["stretch", "pad", "crop"]

# Default loss of overlapping classes.
_BCE_AND_DICE = LossConfig(bce=BceTerm(weight=1), dice=Term(weight=1))

# Placeholder for the fold's index in the path of initial weights.
_FOLD = "{fold}"


def _usual_augment(values: dict[str, Any]) -> Augment:
    """Default augmentation; slices as channels have no colour to change."""
    data = values.get("data")
    return "d4" if isinstance(data, DataConfig) and data.context_slices else "light"


def _usual_loss(values: dict[str, Any]) -> LossConfig:
    """Default loss."""
    classes = values.get("classes")
    if isinstance(classes, ClassesConfig) and classes.is_exclusive:
        return LossConfig(ce=Term(weight=1), dice=Term(weight=1))
    return _BCE_AND_DICE


class Recipe(Section):
    """Settings of a training run; `load_recipe` reads one.

    Examples
    --------
    >>> recipe = load_recipe("recipe.yaml")  # doctest: +SKIP
    >>> recipe.class_table.names, recipe.mpp  # doctest: +SKIP
    (('gland',), 0.5)
    """

    name: str = "model"
    """Name of the model; free text."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Random seed of the validation split, patches, augmentation and initial weights."""
    classes: ClassesConfig
    """Structures to segment."""
    data: DataConfig
    """Which slides are used for training, and which are held out."""
    mpp: Annotated[float | None, Field(gt=0), Unit("um per pixel")]
    """Resolution of the model's input; null uses level-0 pixels as they are."""
    patch_px: Annotated[int, Unit("pixels")] = Field(default=256, ge=8, le=4096)
    """Side of a training patch at that mpp; also the model's tile at inference."""
    resize: Resize | None = None
    """For small images: resize every image to a square of ``patch_px``, or to ``resize_px``.
    ``stretch`` changes the aspect ratio, ``pad`` fits the image inside and pads it by reflection,
    ``crop`` fills the target and crops the longer side; at inference the result is resized back to
    the image's own size. Null keeps the resolution."""
    resize_px: Annotated[
        tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] | None, Unit("pixels")
    ] = None
    """Height and width for ``resize``, such as ``[320, 480]``; squares of ``patch_px`` are cropped
    from it. Null resizes to one such square."""
    intensity: IntensityConfig = IntensityConfig()
    """Normalisation of intensities before augmentation, the same in training and inference."""
    sampling: SamplingConfig = SamplingConfig()
    """Where patches are drawn."""
    augment: Augment = Field(default_factory=_usual_augment)
    """Augmentation: a preset, or a list of steps, each with exactly one of the keys below. ``d4``
    is flips and 90-degree rotations; ``light`` adds slight changes of colour, blur and noise;
    ``stain`` adds any rotation, scaling and strong changes of colour; ``siim`` and ``stas`` are
    those of two competition solutions. The default is ``light``, or ``d4`` with
    ``data.context_slices``, which have no colour."""
    mix_batches: MixBatchesConfig | None = None
    """CutMix or MixUp within a batch; null uses neither."""
    model: ModelConfig = ModelConfig()
    """Network to train."""
    loss: LossConfig = Field(
        default_factory=_usual_loss,
        json_schema_extra={"default": _BCE_AND_DICE.model_dump(include={"bce", "dice"})},
    )
    """Loss function: a weighted sum of terms."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and its settings."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning-rate schedule."""
    train: TrainConfig = TrainConfig()
    """Length, hardware and validation of the training."""
    phases: tuple[PhaseConfig, ...] = ()
    """Stages of the run, each with changes to the recipe; an empty list is one unchanged stage."""
    rounds: RoundsConfig | None = None
    """Rounds of hard-example mining; null trains once."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """How the networks of all folds are combined."""

    @property
    def stages(self) -> tuple["Recipe", ...]:
        """Recipe of each phase in order, or this recipe if it has no phases.

        Each has its own seed, so that no phase draws the same patches as the one before.

        Raises
        ------
        pydantic.ValidationError
            If a phase makes the recipe invalid; `load_recipe` turns this into a message.
        """
        if not self.phases:
            return (self,)
        values = self.model_dump(mode="json", exclude={"phases", "rounds"})
        return tuple(
            Recipe.model_validate_json(
                json.dumps(phase.applied_to(values) | {"seed": self.seed + index})
            )
            for index, phase in enumerate(self.phases)
        )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases are named {', '.join(names)}; expected each name once")
        if self.resize is not None and self.mpp is not None:
            raise ValueError(
                f"got resize {self.resize} and mpp {self.mpp:g}; expected mpp null, because "
                "resizing changes the resolution of each slide"
            )
        if self.resize_px is not None and self.resize is None:
            raise ValueError(
                f"got resize_px {list(self.resize_px)} and resize null; expected resize stretch, "
                "pad or crop"
            )
        if self.rounds and not (self.data.folds and self.ensemble.out_of_fold):
            raise ValueError(
                "rounds need out-of-fold predictions; expected data.folds to be a number, and "
                "ensemble.out_of_fold true"
            )
        if self.ensemble.average == "greedy" and not (self.data.folds or self.data.validation):
            raise ValueError(
                "ensemble.average greedy needs held-out slides; expected data.validation above 0, "
                "or data.folds"
            )
        if _FOLD in (self.model.weights or "") and self.data.folds is None:
            raise ValueError(f"model.weights has {_FOLD}; expected data.folds to be a number")
        if self.phases:
            return self  # `stages` validates the recipe of each phase
        self._require_fitting_loss()
        if self.model.head is not None and not self.loss.bce_empty.weight:
            raise ValueError("model.head needs its own loss; expected loss.bce_empty above 0")
        if self.model.deep_supervision and set(self.loss.terms) == {"bce_empty"}:
            raise ValueError("model.deep_supervision needs a pixelwise loss next to loss.bce_empty")
        return self

    def _require_fitting_loss(self) -> None:
        """Refuse loss terms and options that are undefined for the mode of the classes."""
        exclusive, terms = self.classes.is_exclusive, set(self.loss.terms)
        if wrong := sorted(terms & (INDEPENDENT if exclusive else EXCLUSIVE)):
            other, own, fitting = "exclusive", "overlapping", "bce"
            if exclusive:
                other, own, fitting = "overlapping", "exclusive", "ce"
            raise ValueError(
                f"loss.{wrong[0]} is for {other} classes, and these are {own}; use for example "
                f"loss.{fitting}, or set classes.mode to {other}"
            )
        if exclusive and self.loss.focal.alpha is not None:
            raise ValueError(
                "loss.focal.alpha weighs one class against the rest, and these classes are "
                "exclusive; expected null: set classes.weight instead"
            )
        if exclusive and "bce_empty" in terms and self.model.head is None:
            raise ValueError("loss.bce_empty with exclusive classes needs a model.head")
        if exclusive and self.train.monitor == "triplet":
            raise ValueError(
                "train.monitor triplet is for overlapping classes, and these are exclusive; "
                "expected another, such as dice_slide"
            )

    def of_fold(self, index: int) -> "Recipe":
        """Return the recipe with ``{fold}`` in ``model.weights`` replaced by ``index``, from 0."""
        if self.model.weights is None:
            return self
        weights = self.model.weights.replace(_FOLD, str(index))
        return self.model_copy(update={"model": self.model.model_copy(update={"weights": weights})})

    @property
    def class_table(self) -> ClassTable:
        """Class table with ids and colours."""
        return self.classes.named()

    def _repr_html_(self) -> str:
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return lines_html(text.splitlines())
