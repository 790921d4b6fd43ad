"""Owns patch sampling: importance maps of slides, and samplers that draw from them."""

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
