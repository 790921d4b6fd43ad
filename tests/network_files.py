"""Networks as other programs save them."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Batch, height and width of any number; smp's networks need sides of a multiple of 32.
ANY = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}


def save_pt2(path: Path, network: nn.Module, *, side: int = 64, shapes: Any = ANY) -> Path:
    """Save with torch.export; ``shapes`` None fixes batch and sides."""
    images = torch.randn(2, 3, side, side)
    given = None if shapes is None else (shapes,)
    torch.export.save(torch.export.export(network.eval(), (images,), dynamic_shapes=given), path)
    return path


def save_onnx(path: Path, network: nn.Module, *, side: int = 64, shapes: Any = ANY) -> Path:
    """Save with torch's exporter; ``shapes`` None fixes batch and sides."""
    images = torch.randn(2, 3, side, side)
    given = None if shapes is None else (shapes,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (images,), path, dynamo=True, dynamic_shapes=given,
            external_data=False, verbose=False,
        )  # fmt: skip
    return path


def save_script(path: Path, network: nn.Module, *, side: int = 64) -> Path:
    """Save a trace as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), torch.randn(2, 3, side, side))
        torch.jit.save(traced, path)
    return path


def small(classes: int = 2) -> nn.Sequential:
    """Plain layers with a receptive field of 5 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, classes, 3, padding=1),
    ).eval()  # fmt: skip
