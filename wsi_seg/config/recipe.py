"""Owns the recipe: what a training run is, section by section."""

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

# Loss of classes that are decided one by one.
_BCE_AND_DICE = LossConfig(bce=BceTerm(weight=1), dice=Term(weight=1))

# Stands for the number of the fold in the path of first weights.
_FOLD = "{fold}"


def _usual_augment(values: dict[str, Any]) -> Augment:
    """Augmentation where a recipe does not say; slices seen as channels have no colour."""
    data = values.get("data")
    return "d4" if isinstance(data, DataConfig) and data.context_slices else "light"


def _usual_loss(values: dict[str, Any]) -> LossConfig:
    """Loss where a recipe does not say."""
    classes = values.get("classes")
    if isinstance(classes, ClassesConfig) and classes.is_exclusive:
        return LossConfig(ce=Term(weight=1), dice=Term(weight=1))
    return _BCE_AND_DICE


class Recipe(Section):
    """A training run; `load_recipe` reads one.

    Examples
    --------
    >>> recipe = load_recipe("recipe.yaml")  # doctest: +SKIP
    >>> recipe.class_table.names, recipe.mpp  # doctest: +SKIP
    (('gland',), 0.5)
    """

    name: str = "model"
    """Name of the model, free text for people."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides slides held out, patches drawn, augmentation and first weights."""
    classes: ClassesConfig
    """Structures to segment."""
    data: DataConfig
    """Which slides are learned from, and which are held out."""
    mpp: Annotated[float | None, Field(gt=0), Unit("um per pixel")]
    """Resolution that the model works at; null takes pixels of level 0 as they are."""
    patch_px: Annotated[int, Unit("pixels")] = Field(default=256, ge=8, le=4096)
    """Side of a training patch at that mpp; also the model's tile at inference."""
    resize: Resize | None = None
    """For small images: resize each to a square of ``patch_px``, or to ``resize_px``, whatever its
    size. ``stretch`` changes the aspect, ``pad`` mirrors what is missing, ``crop`` fills it and
    cuts what is longer; at inference the result has the image's own size again. Null keeps the
    resolution."""
    resize_px: Annotated[
        tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] | None, Unit("pixels")
    ] = None
    """Height and width that ``resize`` brings images to, such as ``[320, 480]``; squares of
    ``patch_px`` are cut from it. Null is one such square."""
    intensity: IntensityConfig = IntensityConfig()
    """How grey values and colours are changed before augmentation, and in inference alike."""
    sampling: SamplingConfig = SamplingConfig()
    """Where patches are drawn."""
    augment: Augment = Field(default_factory=_usual_augment)
    """How patches are changed: a preset, or a list of steps, each with exactly one of the keys
    below. ``d4`` is flips and quarter turns; ``light`` adds slight changes of colour, blur and
    noise; ``stain`` any rotation, scale, and strong changes of colour; ``siim`` and ``stas`` are
    the lists of two teams of competitions. The default is ``light``, or ``d4`` with
    ``data.context_slices``, which have no colour."""
    mix_batches: MixBatchesConfig | None = None
    """CutMix or MixUp of the patches of a batch; null does neither."""
    model: ModelConfig = ModelConfig()
    """Network that is trained."""
    loss: LossConfig = Field(
        default_factory=_usual_loss,
        json_schema_extra={"default": _BCE_AND_DICE.model_dump(include={"bce", "dice"})},
    )
    """What is minimised: a sum of terms, each named with its weight."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How weights are changed."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes."""
    train: TrainConfig = TrainConfig()
    """How long, how fast and on what it trains."""
    phases: tuple[PhaseConfig, ...] = ()
    """Stages that the run goes through; an empty list is one stage of the recipe as it is."""
    rounds: RoundsConfig | None = None
    """Rounds of hard mining; null trains once."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """What is made of the networks of all folds."""

    @property
    def stages(self) -> tuple["Recipe", ...]:
        """Recipe of each phase in turn; this one where there are no phases.

        Each has a seed of its own, so that no phase draws the patches of the one before.

        Raises
        ------
        pydantic.ValidationError
            If a phase changes what it cannot; see `load_recipe` for the sentence about it.
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
                f"got resize {self.resize} and mpp {self.mpp:g}; expected mpp null, because a "
                "slide that is resized does not keep its resolution"
            )
        if self.resize_px is not None and self.resize is None:
            raise ValueError(
                f"got resize_px {list(self.resize_px)} and resize null; expected resize stretch, "
                "pad or crop"
            )
        if self.rounds and not (self.data.folds and self.ensemble.out_of_fold):
            raise ValueError(
                "rounds mine predictions of slides that a fold has not seen; expected data.folds "
                "to be a number, and ensemble.out_of_fold"
            )
        if self.ensemble.average == "greedy" and not (self.data.folds or self.data.validation):
            raise ValueError(
                "ensemble.average greedy chooses by slides held out; expected data.validation "
                "above 0, or data.folds"
            )
        if _FOLD in (self.model.weights or "") and self.data.folds is None:
            raise ValueError(f"model.weights names {_FOLD}; expected data.folds to be a number")
        if self.phases:
            return self  # each phase is checked as it is then
        self._require_fitting_loss()
        if self.model.head is not None and not self.loss.bce_empty.weight:
            raise ValueError("model.head needs a loss of its own; expected loss.bce_empty above 0")
        if self.model.deep_supervision and set(self.loss.terms) == {"bce_empty"}:
            raise ValueError("model.deep_supervision needs a loss of pixels next to loss.bce_empty")
        return self

    def _require_fitting_loss(self) -> None:
        """Refuse what has no meaning for the classes as they are."""
        exclusive, terms = self.classes.is_exclusive, set(self.loss.terms)
        if wrong := sorted(terms & (INDEPENDENT if exclusive else EXCLUSIVE)):
            other, own, fitting = "exclusive", "overlapping", "bce"
            if exclusive:
                other, own, fitting = "overlapping", "exclusive", "ce"
            raise ValueError(
                f"loss.{wrong[0]} is for {other} classes, and these are {own}; expected for "
                f"example loss.{fitting}, or classes.mode {other}"
            )
        if exclusive and self.loss.focal.alpha is not None:
            raise ValueError(
                "loss.focal.alpha weighs one class against the rest; expected null, and a weight "
                "of each class, because these are exclusive"
            )
        if exclusive and "bce_empty" in terms and self.model.head is None:
            raise ValueError("loss.bce_empty of exclusive classes needs a model.head of its own")
        if exclusive and self.train.monitor == "triplet":
            raise ValueError(
                "train.monitor triplet tries thresholds of independent classes, and these are "
                "exclusive; expected another, such as dice_slide"
            )

    def of_fold(self, index: int) -> "Recipe":
        """Recipe of the fold ``index``, from 0: its first weights are named."""
        if self.model.weights is None:
            return self
        weights = self.model.weights.replace(_FOLD, str(index))
        return self.model_copy(update={"model": self.model.model_copy(update={"weights": weights})})

    @property
    def class_table(self) -> ClassTable:
        """Classes with their ids and colours."""
        return self.classes.named()

    def _repr_html_(self) -> str:
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return lines_html(text.splitlines())
