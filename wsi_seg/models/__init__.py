"""Owns networks and their files. No other package imports smp or timm."""

from wsi_seg.models.card import ModelCard
from wsi_seg.models.checkpoint import load_checkpoint, read_card, save_checkpoint
from wsi_seg.models.network import NetworkSpec, build_network, size_multiple

__all__ = [
    "ModelCard",
    "NetworkSpec",
    "build_network",
    "load_checkpoint",
    "read_card",
    "save_checkpoint",
    "size_multiple",
]
