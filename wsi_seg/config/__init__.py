"""Recipes: one YAML file per training run, validated strictly."""

from wsi_seg.config.data import ClassConfig, DataConfig
from wsi_seg.config.load import load_recipe, save_recipe
from wsi_seg.config.loss import LossConfig
from wsi_seg.config.model import ModelConfig
from wsi_seg.config.optimizer import OptimizerConfig, ScheduleConfig
from wsi_seg.config.recipe import Recipe
from wsi_seg.config.sampling import MixConfig, SamplingConfig
from wsi_seg.config.training import TrainConfig

__all__ = [
    "ClassConfig",
    "DataConfig",
    "LossConfig",
    "MixConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "SamplingConfig",
    "ScheduleConfig",
    "TrainConfig",
    "load_recipe",
    "save_recipe",
]
