"""Owns the forward pass: device, precision, normalisation. Knows tiles, no slides."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsi_seg.errors import ConfigError
from wsi_seg.infer.clock import DeviceClock
from wsi_seg.infer.tta import Tta, predict_views
from wsi_seg.infer.windows import PROBABILITY_STEPS
from wsi_seg.models import ModelCard, size_multiple
from wsi_seg.models.fuse import fused

# Pixels in one forward pass: enough to fill the device, small against its memory.
_BATCH_PX = {"cpu": 2**20, "cuda": 2**24}


# Side of the px that the cost of a lower precision is measured on.
_SAMPLE_PX = 256


class TilePredictor(Protocol):
    """What the stream needs of a predictor; tests put toy models behind it."""

    channels: int
    device: torch.device

    def predict(self, tiles: NDArray[np.uint8]) -> torch.Tensor:
        """Probabilities of tiles.

        Parameters
        ----------
        tiles
            ``(B, T, T, C)`` uint8.

        Returns
        -------
        torch.Tensor
            ``(B, C, T, T)`` int32 on `device`, 0 to `PROBABILITY_STEPS`.
        """


def pick_device(name: str) -> torch.device:
    """Device of this name; ``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"got device {name!r}; expected auto, cpu or cuda[:N]") from error
    if device.type not in _BATCH_PX:
        raise ConfigError(f"got device {name!r}; expected auto, cpu or cuda[:N]")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"got device {name!r}, but this machine has no usable CUDA device")
    return device


def batch_for(place: "Place", tile_px: int) -> int:
    """Tiles per forward pass that suit a kind of device; memory may allow fewer."""
    return max(1, _BATCH_PX[torch.device(place.device).type] // tile_px**2)


def pick_precision(name: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` is bf16 where the hardware multiplies it natively."""
    if name in ("fp32", "bf16"):
        return name
    if name != "auto":
        raise ConfigError(f"got precision {name!r}; expected auto, fp32 or bf16")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how networks compute; plain data that pickles.

    Parameters
    ----------
    device
        As torch names it.
    precision
        ``fp32`` or ``bf16``.
    memory
        Bytes that are free in the device's own memory; None on a CPU, which has none.
    """

    device: str
    precision: str
    memory: int | None


def place_here(device: str, precision: str) -> Place:
    """Choose device and precision on this machine; see `pick_device`, `pick_precision`."""
    found = pick_device(device)
    free = torch.cuda.mem_get_info(found)[0] if found.type == "cuda" else None
    return Place(str(found), pick_precision(precision, found), free)


@dataclass(frozen=True, slots=True)
class Change:
    """What speed costs: shares of px that differ from the network in float32, as trained.

    Parameters
    ----------
    labels
        Px whose probability lies on the other side of one half.
    values
        Px whose probability differs when it is rounded to 1 / 255.
    """

    labels: float = 0.0
    values: float = 0.0


class Predictor:
    """A network ready to predict tiles.

    Parameters
    ----------
    network
        Maps normalised ``(B, C, H, W)`` to logits ``(B, C, H, W)``. It is copied, not changed.
    card
        Gives classes and normalisation.
    device, precision
        See `pick_device`, `pick_precision`.
    tta
        Views that are averaged; see `tta.predict_views`.
    compiled
        Compile the network with torch.compile; what it compiles is kept on disk, by torch, for
        the next run. Needs a C++ compiler (CPU) or Triton (CUDA).
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        *,
        device: str = "auto",
        precision: str = "auto",
        tta: Tta = "none",
        compiled: bool = False,
    ) -> None:
        self._tta: Tta = tta
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.channels = len(card.classes)
        self.clock = DeviceClock(self.device)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._multiple = size_multiple(network)
        # What predicts is compared with the network as it was trained.
        self._reference: nn.Module | None = copy.deepcopy(network).eval().to(self.device)
        fast = fused(self._reference, len(card.mean))
        fast = fast.to(self._dtype).to(memory_format=torch.channels_last)
        self._network: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(fast) if compiled else fast
        )
        # (x / 255 - mean) / std as one multiplication and one addition.
        mean, std = (
            torch.tensor(values, device=self.device).reshape(1, -1, 1, 1)
            for values in (card.mean, card.std)
        )
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def predict(self, tiles: NDArray[np.uint8]) -> torch.Tensor:
        """Probabilities of ``(B, T, T, C)`` uint8 tiles; see `TilePredictor.predict`.

        Raises
        ------
        ConfigError
            If the device has too little memory for so many tiles.
        """
        try:
            with self.clock:
                return predict_views(self._predict_once, tiles, self._tta)
        except torch.OutOfMemoryError as error:
            count, side = tiles.shape[:2]
            way = f"--batch {count // 2}" if count > 1 else f"--tile {side // 2}"
            raise ConfigError(
                f"{self.device} has too little memory for a batch of {count} tiles of {side} px; "
                f"repeat with {way}"
            ) from error

    def _predict_once(self, tiles: NDArray[np.uint8]) -> torch.Tensor:
        return quantise(torch.sigmoid(self._logits(self._network, tiles, self._dtype)))

    def change(self, tiles: NDArray[np.uint8]) -> Change:
        """Compare with the network in float32, as it was trained; it is let go afterwards.

        Measured on the middle of the tiles: float32 is several times slower.
        """
        if self._reference is None:
            return Change()
        margin = max(0, tiles.shape[1] - _SAMPLE_PX) // 2
        tiles = np.ascontiguousarray(tiles[:, margin:, margin:][:, :_SAMPLE_PX, :_SAMPLE_PX])
        fast = torch.sigmoid(self._logits(self._network, tiles, self._dtype))
        exact = torch.sigmoid(self._logits(self._reference, tiles, torch.float32))
        self._reference = None
        labels = (fast > 0.5) != (exact > 0.5)
        values = (255 * fast).round() != (255 * exact).round()
        return Change(float(labels.float().mean()), float(values.float().mean()))

    @torch.inference_mode()
    def _logits(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        tiles: NDArray[np.uint8],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        images = torch.from_numpy(tiles)
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        images = images.permute(0, 3, 1, 2).float().mul_(self._scale).add_(self._shift)
        height, width = images.shape[2:]
        # Networks halve the image several times; other sizes are padded and cropped back.
        below, right = -height % self._multiple, -width % self._multiple
        if below or right:
            images = nn.functional.pad(images, (0, right, 0, below), mode="replicate")
        logits: torch.Tensor = network(images.to(dtype, memory_format=torch.channels_last))
        return logits[:, :, :height, :width].float()


def quantise(probability: torch.Tensor) -> torch.Tensor:
    """Probabilities 0 to 1 as int32 steps of 1 / `PROBABILITY_STEPS`; NaN becomes 0."""
    steps = probability.nan_to_num(0.0).mul(PROBABILITY_STEPS).round_()
    return steps.to(torch.int32)
