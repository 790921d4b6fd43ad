"""Owns networks in files of other programs, as modules that predictors take as they are.

Whatever type, batch or size a file was made for, such a module takes any batch of float32 images
and gives float32 maps, or says in a sentence why it cannot.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wsi_seg.errors import CheckpointError, ConfigError

# Name under which an archive that we wrote holds its card.
CARD = "wsi_seg.json"

# What libraries raise where a network cannot be run on an image; torch checks some by assertion.
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8)


@dataclass(frozen=True, slots=True)
class ImageForm:
    """What a file says of its images; None where any number will do.

    Parameters
    ----------
    batch, channels, height, width
        Of the image, ``(B, C, H, W)``.
    dtype
        Of its values.
    """

    batch: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, sizes: list[int | None], dtype: torch.dtype | None, path: Path) -> "ImageForm":
        """Form of an input with these sizes.

        Raises
        ------
        CheckpointError
            If it is not a batch of images, or of a type that no image has.
        """
        if len(sizes) != 4:
            raise CheckpointError(
                f"{path} takes an input of {len(sizes)} axes; expected 4: (batch, channels, "
                "height, width); export it so"
            )
        if dtype not in _DTYPES:
            raise CheckpointError(
                f"{path} takes values of {dtype}; expected one of "
                f"{', '.join(str(one).removeprefix('torch.') for one in _DTYPES)}"
            )
        batch, channels, height, width = sizes
        return cls(batch, channels, height, width, dtype)

    def require_fits(self, path: Path, channels: int, tile_px: int) -> None:
        """Raise a `CheckpointError` if the file does not take tiles of this form."""
        if self.channels not in (None, channels):
            last = f"; its channels are the last axis, of {self.width}" * (self.width == channels)
            raise CheckpointError(
                f"{path} takes images of {self.channels} channels and its card says {channels}"
                f"{last}; expected (batch, channels, height, width) and a card that agrees"
            )
        sides = [side for side in (self.height, self.width) if side not in (None, tile_px)]
        if sides:
            raise CheckpointError(
                f"{path} takes images of {self.height or 'any'} x {self.width or 'any'} pixels "
                f"and tiles have {tile_px}; set tile_px of the card to what the file takes, or "
                "export it with dynamic height and width"
            )


class FileNetwork(nn.Module, ABC):
    """A network of a file, on a device.

    It has no parameters of its own as a module, so it is neither moved nor converted; predictors
    compute with it in float32.

    Parameters
    ----------
    path
        The file; named in errors.
    form
        Of its images. A batch that it fixes is kept to: longer ones are cut, shorter ones padded.

    Attributes
    ----------
    parameters_count
        Number of values of its weights.
    """

    parameters_count: int

    def __init__(self, path: Path, form: ImageForm) -> None:
        super().__init__()
        self.path, self.form = path, form

    @property
    def stated(self) -> str | None:
        """Card that `wsi-seg pack` wrote into the file, as JSON; None without one."""
        if not zipfile.is_zipfile(self.path):
            return None
        with zipfile.ZipFile(self.path) as archive:
            name = next((n for n in archive.namelist() if n.endswith(f"extra/{CARD}")), None)
            return None if name is None else archive.read(name).decode()

    @abstractmethod
    def run(self, images: torch.Tensor) -> object:
        """Run one batch of the file's own form; return what the file gives."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Predict ``(B, C, H, W)`` float32; return ``(B, K, H, W)`` float32.

        Raises
        ------
        ConfigError
            If the file does not take images of this size, or does not give one map.
        """
        batch = self.form.batch or len(images)
        found = [self._part(part, batch) for part in images.split(batch)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _part(self, images: torch.Tensor, batch: int) -> torch.Tensor:
        """Predict at most one batch, padded by its last image where it is short."""
        count = len(images)
        given = images if self.form.dtype.is_floating_point else images.round().clamp(0, 255)
        given = given.to(self.form.dtype)
        if count < batch:
            given = torch.cat([given, given[-1:].expand(batch - count, -1, -1, -1)])
        try:
            found = only_map(self.run(given.contiguous()))
        except torch.OutOfMemoryError:
            raise
        except _FAILURES as error:
            reason = " ".join(str(error).split())[:300]
            height, width = images.shape[2:]
            raise ConfigError(
                f"{self.path} does not take {batch} images of {height} x {width} pixels "
                f"({reason}); choose another --tile and --batch, or export it with dynamic "
                "batch, height and width"
            ) from error
        if found is None:
            raise ConfigError(
                f"{self.path} gives several outputs; expected one map (batch, classes, height, "
                "width); export the one that is wanted alone"
            )
        return found[:count].float()


def only_map(found: object) -> torch.Tensor | None:
    """Tensor of what a network gave: itself, or the only one in a list or mapping; else None."""
    if isinstance(found, torch.Tensor):
        return found
    parts = list(found.values()) if isinstance(found, Mapping) else found
    if isinstance(parts, list | tuple) and len(parts) == 1:
        return only_map(parts[0])
    return None
