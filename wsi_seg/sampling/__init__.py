"""Owns whom the model is fed: importance maps of slides, and patches drawn from them."""

from wsi_seg.sampling.importance import CellTable, SlideMap, map_slide
from wsi_seg.sampling.samplers import Draws, Layer, PatchSampler

__all__ = ["CellTable", "Draws", "Layer", "PatchSampler", "SlideMap", "map_slide"]
