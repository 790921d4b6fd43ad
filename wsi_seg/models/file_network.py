"""Owns the base class of exported networks, which wraps a file as a module for predictors.

Whatever dtype, batch size or image size a file was exported for, the module maps any batch of
float32 images to float32 maps, or raises an error that says why it cannot.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wsi_seg.counts import counted
from wsi_seg.errors import CheckpointError, ConfigError

# Name of the card in archives written by `wsi-seg pack`.
CARD = "wsi_seg.json"

# Exceptions that libraries raise if a network cannot be run on an image.
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8)


@dataclass(frozen=True, slots=True)
class ImageForm:
    """Input shape and dtype of an exported network; None for dynamic axes.

    Parameters
    ----------
    batch, channels, height, width
        Shape of the input, ``(B, C, H, W)``.
    dtype
        Dtype of the input.
    """

    batch: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, sizes: list[int | None], dtype: torch.dtype | None, path: Path) -> "ImageForm":
        """Build the form of an input from its shape and dtype.

        Raises
        ------
        CheckpointError
            If the input is not a batch of images, or has an unsupported dtype.
        """
        if len(sizes) != 4:
            raise CheckpointError(
                f"{path} takes an input of {len(sizes)} axes; expected 4: (batch, channels, "
                "height, width); export it with these"
            )
        if dtype not in _DTYPES:
            raise CheckpointError(
                f"{path} takes values of {dtype}; expected one of "
                f"{', '.join(str(one).removeprefix('torch.') for one in _DTYPES)}"
            )
        batch, channels, height, width = sizes
        return cls(batch, channels, height, width, dtype)

    def require_fits(self, path: Path, channels: int, tile_px: int) -> None:
        """Raise a `CheckpointError` if the network does not accept these channels and tiles."""
        if self.channels not in (None, channels):
            last = f"; its last axis has {self.width} channels" * (self.width == channels)
            raise CheckpointError(
                f"{path} takes images of {counted(self.channels or 0, 'channel')}, but its card "
                f"has {channels}{last}; expected (batch, channels, height, width) and a card "
                "that agrees"
            )
        sides = [side for side in (self.height, self.width) if side not in (None, tile_px)]
        if sides:
            raise CheckpointError(
                f"{path} takes images of {self.height or 'any'} x {self.width or 'any'} pixels, "
                f"but tiles have {tile_px}; set tile_px of the card to this size, or export the "
                "network with dynamic height and width"
            )


class FileNetwork(nn.Module, ABC):
    """A network from a file, on a device.

    As a module it has no parameters, so it is neither moved nor converted; predictors run it in
    float32.

    Parameters
    ----------
    path
        Path of the file, for errors.
    form
        Shape and dtype of the input. For a fixed batch size, longer batches are split and shorter
        ones padded.

    Attributes
    ----------
    parameters_count
        Number of values of the weights.
    """

    parameters_count: int

    def __init__(self, path: Path, form: ImageForm) -> None:
        super().__init__()
        self.path, self.form = path, form

    @property
    def embedded_card(self) -> str | None:
        """Card that `wsi-seg pack` wrote into the file, as JSON; None if there is none."""
        if not zipfile.is_zipfile(self.path):
            return None
        with zipfile.ZipFile(self.path) as archive:
            name = next((n for n in archive.namelist() if n.endswith(f"extra/{CARD}")), None)
            return None if name is None else archive.read(name).decode()

    @abstractmethod
    def run(self, images: torch.Tensor) -> object:
        """Run one batch with the file's own shape and dtype, and return its raw output."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, H, W)`` float32 images to ``(B, K, H, W)`` float32.

        Raises
        ------
        ConfigError
            If the network does not accept images of this size, or does not return a single map.
        """
        batch = self.form.batch or len(images)
        found = [self._part(part, batch) for part in images.split(batch)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _part(self, images: torch.Tensor, batch: int) -> torch.Tensor:
        """Run at most one batch, padded with its last image if it is short."""
        count = len(images)
        given = images if self.form.dtype.is_floating_point else images.round().clamp(0, 255)
        given = given.to(self.form.dtype)
        if count < batch:
            given = torch.cat([given, given[-1:].expand(batch - count, -1, -1, -1)])
        try:
            found = single_tensor(self.run(given.contiguous()))
        except torch.OutOfMemoryError:
            raise
        except _FAILURES as error:
            reason = " ".join(str(error).split())[:300]
            height, width = images.shape[2:]
            raise ConfigError(
                f"{self.path} does not take {batch} images of {height} x {width} pixels "
                f"({reason}); use another --tile and --batch, or export it with dynamic batch, "
                "height and width"
            ) from error
        if found is None:
            raise ConfigError(
                f"{self.path} returns several outputs; expected one map (batch, classes, height, "
                "width); export only that output"
            )
        return found[:count].float()


def single_tensor(found: object) -> torch.Tensor | None:
    """Return a network's output if it is one tensor, possibly in a list or mapping; else None."""
    if isinstance(found, torch.Tensor):
        return found
    parts = list(found.values()) if isinstance(found, Mapping) else found
    if isinstance(parts, list | tuple) and len(parts) == 1:
        return single_tensor(parts[0])
    return None
