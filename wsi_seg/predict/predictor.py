"""Owns the forward pass: uint8 tiles on a device in, whole-number probabilities out."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from wsi_seg.choices import Tta
from wsi_seg.errors import ConfigError
from wsi_seg.models import ModelCard, size_multiple
from wsi_seg.models.activation import class_probabilities
from wsi_seg.models.file_network import FileNetwork
from wsi_seg.predict.device import dtype_of, pick_device, pick_precision
from wsi_seg.predict.fuse import fused
from wsi_seg.predict.graph import GraphedNetwork
from wsi_seg.predict.tta import predict_views

# Probabilities are whole numbers of so many steps, 16 for each value of the uint8 result.
PROBABILITY_STEPS = 16 * 255

# Tiles that are also predicted in float32, to see what speed costs. It is done on the CPU: on a GPU
# choosing and loading kernels for one pass of another type takes seconds.
_COMPARED = 1


class TilePredictor(Protocol):
    """What inference needs of a predictor; tests put toy models here."""

    channels: int
    device: torch.device

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Probabilities of tiles.

        Parameters
        ----------
        tiles
            ``(B, T, T, C)`` uint8 on `device`.

        Returns
        -------
        torch.Tensor
            ``(B, K, T, T)`` int32 on `device`, 0 to `PROBABILITY_STEPS`.
        """


@dataclass(frozen=True, slots=True)
class PrecisionDrift:
    """What speed costs: shares of pixels that differ from the network in float32, as trained.

    Parameters
    ----------
    labels
        Pixels whose probability is on the other side of one half; of another class where classes
        are exclusive.
    values
        Pixels whose probability differs when it is rounded to 1 / 255.
    """

    labels: float = 0.0
    values: float = 0.0

    @classmethod
    def largest(cls, drifts: Iterable["PrecisionDrift"]) -> "PrecisionDrift":
        """Largest shares of several; zeros where there are none."""
        found = [*drifts, cls()]
        return cls(max(one.labels for one in found), max(one.values for one in found))


def quantise(probability: torch.Tensor) -> torch.Tensor:
    """Probabilities 0 to 1 as int32 steps of 1 / `PROBABILITY_STEPS`; NaN becomes 0."""
    return probability.nan_to_num(0.0).mul_(PROBABILITY_STEPS).round_().to(torch.int32)


class TileNetwork(nn.Module):
    """A network with all that comes before and after it, as one module, so that it compiles as one.

    Parameters
    ----------
    network
        Maps normalised ``(B, C, H, W)`` of ``dtype`` to ``(B, outputs, H, W)``, see
        `ClassTable.outputs`.
    card
        Gives the normalisation, and says whether classes are exclusive and whether the outputs are
        logits or probabilities.
    dtype
        Arithmetic of the network; before and after it is float32.
    multiple
        What must divide the sides of the network's input; other tiles are padded by their borders.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, network: nn.Module, card: ModelCard, *, dtype: torch.dtype, multiple: int
    ) -> None:
        super().__init__()
        self.network = network
        self.exclusive = card.classes.is_exclusive
        self._dtype, self._multiple = dtype, multiple
        self._activated = card.output == "probabilities"
        # (x / 255 - mean) / std as one multiplication and one addition.
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """See `TilePredictor.predict`; each line is a pass over all pixels where not compiled."""
        images = self._normalised(tiles.permute(0, 3, 1, 2))
        height, width = images.shape[2:]
        below, right = -height % self._multiple, -width % self._multiple
        if below or right:
            images = nn.functional.pad(images, (0, right, 0, below), mode="replicate")
        logits = self.network(images.to(memory_format=torch.channels_last))
        logits = logits[:, :, :height, :width]
        found = logits.to(torch.float32, memory_format=torch.contiguous_format)
        if not self._activated:
            return quantise(class_probabilities(found, exclusive=self.exclusive))
        return quantise((found[:, 1:] if self.exclusive else found).clamp(0, 1))

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, H, W)`` uint8, in float32, to the network's dtype."""
        if self._dtype == torch.float32:
            images = images * self.scale
            images += self.shift
            return images
        # One pass over all pixels, which matters on a GPU.
        found = torch.empty_like(images, dtype=self._dtype)
        return torch.addcmul(self.shift, images, self.scale, out=found)


class Predictor:
    """A network ready to predict tiles.

    Parameters
    ----------
    network
        Maps normalised ``(B, C, H, W)`` to logits ``(B, outputs, H, W)``, in float32, see
        `ClassTable.outputs`. It is not changed, nor should it be until `drift` is read. A network
        of another program's file is used as it is, in float32.
    card
        Gives classes and normalisation.
    device, precision
        See `pick_device`, `pick_precision`.
    tta
        Views that are averaged; see `tta.predict_views`.
    compiled
        Compile the network with torch.compile, for one shape of tiles; what it compiles is kept
        on disk, by torch, for the next run. See `compiling.missing_compiler`.

    Raises
    ------
    ConfigError
        If there is no such device, or it does not compute at this precision.
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
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.channels = len(card.classes)
        self._tta: Tta = tta
        self._image_channels = len(card.mean)
        self._compared: tuple[TileNetwork, torch.Tensor, torch.Tensor] | None = None
        self._drift: Future[PrecisionDrift] | None = None
        self._network: Callable[[torch.Tensor], torch.Tensor]
        self._exact: TileNetwork | None = None
        if isinstance(network, FileNetwork):
            as_it_is = TileNetwork(network, card, dtype=torch.float32, multiple=1)
            self._network = as_it_is.to(self.device)
            return
        trained = _in_use(network)
        multiple, dtype = size_multiple(trained), dtype_of(self.precision)
        folded = fused(trained, self._image_channels, card.tile_px + -card.tile_px % multiple)
        folded.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fast = TileNetwork(folded, card, dtype=dtype, multiple=multiple).to(self.device)
        run: Callable[[torch.Tensor], torch.Tensor] = fast
        if compiled:
            run = torch.compile(fast, dynamic=False)
        self._network = GraphedNetwork(run) if self.device.type == "cuda" else run
        self._exact = TileNetwork(trained, card, dtype=torch.float32, multiple=multiple)

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Probabilities of tiles; see `TilePredictor.predict`.

        All calls should be of one shape: a compiled network is compiled for each, and libraries
        choose kernels by it, which round differently.

        Raises
        ------
        ConfigError
            If the device has too little memory for so many tiles.
        """
        # Not inference_mode: tensors made in it are of a kind that is compiled for once more.
        with self._fitting(tiles), torch.no_grad():
            return predict_views(self._predict_view, tiles, self._tta)

    def warm_up(self, batch: int, tile_px: int) -> float:
        """Run one pass of the shape that will be predicted, on random tiles, and compile for it.

        It does not count for the `drift`.

        Returns
        -------
        float
            Seconds it took.

        Raises
        ------
        ConfigError
            If the device has too little memory for so many tiles.
        """
        size = (batch, tile_px, tile_px, self._image_channels)
        # A generator of its own, because training draws from the global one.
        random = torch.Generator(self.device).manual_seed(0)
        tiles = torch.randint(256, size, dtype=torch.uint8, device=self.device, generator=random)
        self._wait()
        began = time.perf_counter()
        with self._fitting(tiles), torch.no_grad():
            self._network(tiles)
            self._wait()
        return time.perf_counter() - began

    @property
    def drift(self) -> PrecisionDrift:
        """What speed costs, measured on the first tile that was predicted; zeros before that.

        On a CPU it is measured when it is first read, so that nothing delays the first tiles.
        """
        if self._compared is not None:
            self._compare(*self._compared)
        return PrecisionDrift() if self._drift is None else self._drift.result()

    def _predict_view(self, tiles: torch.Tensor) -> torch.Tensor:
        found = self._network(tiles)
        if self._exact is not None:
            first, fast = (part[:_COMPARED].to("cpu", copy=True) for part in (tiles, found))
            self._compared, self._exact = (self._exact, first, fast), None
            if self.device.type == "cuda":  # it computes meanwhile
                self._compare(*self._compared)
        return found

    def _compare(self, exact: TileNetwork, tiles: torch.Tensor, found: torch.Tensor) -> None:
        """Measure the drift, in a thread; the exact network is released afterwards."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="wsi-drift")
        self._drift, self._compared = thread.submit(_drift, exact, tiles, found), None
        thread.shutdown(wait=False)

    def _wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def _fitting(self, tiles: torch.Tensor) -> Iterator[None]:
        """Say what to do where the device has too little memory."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            count, side = tiles.shape[:2]
            way = f"--batch {count // 2}" if count > 1 else f"--tile {side // 2}"
            raise ConfigError(
                f"{self.device} has too little memory for a batch of {count} tiles of {side} px; "
                f"repeat with {way}"
            ) from error


def _in_use(network: nn.Module) -> nn.Module:
    """Network in eval mode on the CPU: itself, where it is so already."""
    if not network.training and all(p.device.type == "cpu" for p in network.parameters()):
        return network
    return copy.deepcopy(network).eval().cpu()


@torch.inference_mode()
def _drift(network: TileNetwork, tiles: torch.Tensor, found: torch.Tensor) -> PrecisionDrift:
    """Shares of labels and of uint8 values that a network in float32 gives otherwise."""
    exact = network(tiles)
    step = PROBABILITY_STEPS // 255
    labels = _decided(found, network.exclusive) != _decided(exact, network.exclusive)
    values = (found + step // 2) // step != (exact + step // 2) // step
    return PrecisionDrift(float(labels.float().mean()), float(values.float().mean()))


def _decided(found: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Whether each class is above one half; of exclusive ones, with background first, which is."""
    if not exclusive:
        return found > PROBABILITY_STEPS // 2
    rest = PROBABILITY_STEPS - found.sum(dim=1, keepdim=True)
    return torch.cat([rest, found], dim=1).argmax(dim=1)
