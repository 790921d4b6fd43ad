"""Owns whom the model is fed: importance maps of slides, and patches drawn from them."""

from wsi_seg.sampling.grids import GridSampler
from wsi_seg.sampling.importance import CellTable, SlideMap, map_cells
from wsi_seg.sampling.samplers import Draws, Layer, PatchSampler

__all__ = [
    "CellTable",
    "Draws",
    "GridSampler",
    "Layer",
    "PatchSampler",
    "SlideMap",
    "map_cells",
]
