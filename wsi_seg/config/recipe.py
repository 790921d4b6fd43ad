"""Owns the recipe: what a training run is, section by section."""

import html
from typing import Annotated, Literal

import yaml
from pydantic import Field

from wsi_seg.classes import ClassTable
from wsi_seg.config.data import ClassConfig, DataConfig
from wsi_seg.config.model import ModelConfig
from wsi_seg.config.sampling import SamplingConfig
from wsi_seg.config.section import Section
from wsi_seg.config.training import LossConfig, OptimizerConfig, ScheduleConfig, TrainConfig


class Recipe(Section):
    """A training run.

    Parameters
    ----------
    name
        Free text for people.
    seed
        Decides slides held out, patches drawn, augmentation and first weights.
    classes
        In the order of the model's output channels.
    mpp
        Micrometres per px that the model works at; null takes px of level 0 as they are.
    patch_px
        Side of a training patch at that mpp; also the model's tile at inference.
    augment
        Preset: ``none``, ``d4`` (flips and quarter turns), ``light`` (d4 and slight changes of
        colour, blur and noise), or ``stain`` (any turn, scale, and strong changes of colour).
    """

    name: str = "model"
    seed: int = Field(default=0, ge=0, lt=2**63)
    classes: tuple[ClassConfig, ...] = Field(min_length=1)
    data: DataConfig
    mpp: Annotated[float, Field(gt=0)] | None
    patch_px: int = Field(default=256, ge=8, le=4096)
    sampling: SamplingConfig = SamplingConfig()
    augment: Literal["none", "d4", "light", "stain"] = "d4"
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @property
    def class_table(self) -> ClassTable:
        """Classes with their ids and colours."""
        return ClassTable.named([c.name for c in self.classes], [c.colour for c in self.classes])

    def _repr_html_(self) -> str:
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return f"<pre>{html.escape(text)}</pre>"
