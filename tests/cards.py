"""Model cards for tests: one of a small network, with what a test says differently."""

from dataclasses import replace
from typing import Any

from wsi_seg.classes import ClassTable
from wsi_seg.models.card import ModelCard

_CARD = ModelCard(
    architecture="UnetLean",
    encoder="tu-mobilenetv3_small_050",
    in_channels=3,
    classes=ClassTable.named(["a"]),
    mpp=0.5,
    tile_px=64,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
)


def make_card(*classes: str, **changes: Any) -> ModelCard:
    """Card of a small U-Net of 64 px at 0.5 um per pixel; one class ``a`` if none are named."""
    named: dict[str, Any] = {"classes": ClassTable.named(list(classes))} if classes else {}
    return replace(_CARD, **(named | changes))
