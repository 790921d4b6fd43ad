"""Owns the forward pass: uint8 tiles in, integer probabilities out, on a device."""

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
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.models import ModelCard, size_multiple
from wsi_seg.models.activation import class_probabilities
from wsi_seg.models.file_network import FileNetwork
from wsi_seg.predict.device import dtype_of, pick_device, pick_precision
from wsi_seg.predict.fuse import fuse_batch_norms
from wsi_seg.predict.graph import GraphedNetwork
from wsi_seg.predict.tta import predict_views

# Steps of integer probabilities: 16 per value of the uint8 result.
PROBABILITY_STEPS = 16 * 255

# Tiles that are also predicted in float32 to measure the precision drift, on the CPU, because
# loading GPU kernels of another dtype for a single pass takes seconds.
_DRIFT_TILES = 1


class TilePredictor(Protocol):
    """Interface of predictors for inference."""

    channels: int
    device: torch.device

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Predict probabilities of tiles.

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
    """Fractions of pixels whose result differs from the float32 network as trained.

    Parameters
    ----------
    labels
        Pixels whose probability is on the other side of one half, or whose class differs if classes
        are exclusive; 0 to 1.
    values
        Pixels whose probability differs after rounding to 1 / 255; 0 to 1.
    """

    labels: float = 0.0
    values: float = 0.0

    @classmethod
    def largest(cls, drifts: Iterable["PrecisionDrift"]) -> "PrecisionDrift":
        """Return the maximum of each field; zeros for an empty iterable."""
        found = [*drifts, cls()]
        return cls(max(one.labels for one in found), max(one.values for one in found))


def quantise(probability: torch.Tensor) -> torch.Tensor:
    """Quantise probabilities 0 to 1 to int32 0 to `PROBABILITY_STEPS`; NaN is 0."""
    return probability.nan_to_num(0.0).mul_(PROBABILITY_STEPS).round_().to(torch.int32)


class TileNetwork(nn.Module):
    """A network with its pre- and postprocessing as one module, so that it compiles as a whole.

    Parameters
    ----------
    network
        Maps normalised ``(B, C, H, W)`` of ``dtype`` to ``(B, outputs, H, W)``; see
        `ClassTable.outputs`.
    card
        Defines the normalisation, whether classes are exclusive, and whether the outputs are logits
        or probabilities.
    dtype
        Dtype of the network; pre- and postprocessing are float32.
    multiple
        The sides of the network's input must be multiples of this; other tiles are padded by
        replicating their borders.
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
        """Compute `TilePredictor.predict`; in eager mode each line is a pass over all pixels."""
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
        """Normalise ``(B, C, H, W)`` uint8 in float32, and return it in the network's dtype."""
        if self._dtype == torch.float32:
            images = images * self.scale
            images += self.shift
            return images
        # A single pass over all pixels, for speed on a GPU.
        found = torch.empty_like(images, dtype=self._dtype)
        return torch.addcmul(self.shift, images, self.scale, out=found)


class Predictor:
    """Predicts tiles with one network.

    Parameters
    ----------
    network
        Maps normalised ``(B, C, H, W)`` float32 to logits ``(B, outputs, H, W)`` float32; see
        `ClassTable.outputs`. It is not modified, and must not be modified until `drift` is read. An
        exported file is used unchanged, in float32.
    card
        Defines classes and normalisation.
    device, precision
        See `pick_device`, `pick_precision`.
    tta
        Views that are averaged; see `tta.predict_views`.
    compiled
        Compile the network with torch.compile for one shape of tiles; torch caches the result on
        disk for the next run. See `compiling.missing_compiler`.

    Raises
    ------
    ConfigError
        If there is no such device, or it does not support this precision.
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
            unchanged = TileNetwork(network, card, dtype=torch.float32, multiple=1)
            self._network = unchanged.to(self.device)
            return
        trained = _eval_on_cpu(network)
        multiple, dtype = size_multiple(trained), dtype_of(self.precision)
        tile_px = card.tile_px + -card.tile_px % multiple
        fused = fuse_batch_norms(trained, self._image_channels, tile_px)
        fused.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fast = TileNetwork(fused, card, dtype=dtype, multiple=multiple).to(self.device)
        run: Callable[[torch.Tensor], torch.Tensor] = fast
        if compiled:
            run = torch.compile(fast, dynamic=False)
        self._network = GraphedNetwork(run) if self.device.type == "cuda" else run
        self._exact = TileNetwork(trained, card, dtype=torch.float32, multiple=multiple)

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Predict probabilities of tiles; see `TilePredictor.predict`.

        All calls should have the same shape: a compiled network is recompiled for each shape, and
        kernels for other shapes round differently.

        Raises
        ------
        ConfigError
            If the device has too little memory for this many tiles.
        """
        # Not inference_mode, whose tensors would trigger another compilation.
        with self._explain_memory(tiles), torch.no_grad():
            return predict_views(self._predict_view, tiles, self._tta)

    def warm_up(self, batch: int, tile_px: int) -> float:
        """Run one forward pass on random tiles, which compiles the network for their shape.

        The pass is not used for the `drift`.

        Returns
        -------
        float
            Time in seconds.

        Raises
        ------
        ConfigError
            If the device has too little memory for this many tiles.
        """
        size = (batch, tile_px, tile_px, self._image_channels)
        # Its own generator, because training draws from the global one.
        random = torch.Generator(self.device).manual_seed(0)
        tiles = torch.randint(256, size, dtype=torch.uint8, device=self.device, generator=random)
        self._synchronize()
        start = time.perf_counter()
        with self._explain_memory(tiles), torch.no_grad():
            self._network(tiles)
            self._synchronize()
        return time.perf_counter() - start

    @property
    def drift(self) -> PrecisionDrift:
        """Precision drift on the first predicted tile; zeros before a prediction.

        On a CPU it is measured on first access, so that it does not delay the first tiles.
        """
        if self._compared is not None:
            self._compare(*self._compared)
        return PrecisionDrift() if self._drift is None else self._drift.result()

    def _predict_view(self, tiles: torch.Tensor) -> torch.Tensor:
        found = self._network(tiles)
        if self._exact is not None:
            first, fast = (part[:_DRIFT_TILES].to("cpu", copy=True) for part in (tiles, found))
            self._compared, self._exact = (self._exact, first, fast), None
            if self.device.type == "cuda":  # the CPU is free to compute it
                self._compare(*self._compared)
        return found

    def _compare(self, exact: TileNetwork, tiles: torch.Tensor, found: torch.Tensor) -> None:
        """Measure the drift in a thread, and release the exact network afterwards."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="wsi-drift")
        self._drift, self._compared = thread.submit(_drift, exact, tiles, found), None
        thread.shutdown(wait=False)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def _explain_memory(self, tiles: torch.Tensor) -> Iterator[None]:
        """Turn an out-of-memory error into one that suggests a smaller batch or tile."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            count, side = tiles.shape[:2]
            option = f"--batch {count // 2}" if count > 1 else f"--tile {side // 2}"
            raise ConfigError(
                f"{self.device} has too little memory for a batch of {counted(count, 'tile')} of "
                f"{side} px; retry with {option}"
            ) from error


def _eval_on_cpu(network: nn.Module) -> nn.Module:
    """Return the network itself if it is in eval mode on the CPU, otherwise such a copy."""
    if not network.training and all(p.device.type == "cpu" for p in network.parameters()):
        return network
    return copy.deepcopy(network).eval().cpu()


@torch.inference_mode()
def _drift(network: TileNetwork, tiles: torch.Tensor, found: torch.Tensor) -> PrecisionDrift:
    """Compare a result with that of the float32 network."""
    exact = network(tiles)
    step = PROBABILITY_STEPS // 255
    labels = _labels(found, network.exclusive) != _labels(exact, network.exclusive)
    values = (found + step // 2) // step != (exact + step // 2) // step
    return PrecisionDrift(float(labels.float().mean()), float(values.float().mean()))


def _labels(found: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return whether each class is above one half; for exclusive classes, the argmax."""
    if not exclusive:
        return found > PROBABILITY_STEPS // 2
    rest = PROBABILITY_STEPS - found.sum(dim=1, keepdim=True)
    return torch.cat([rest, found], dim=1).argmax(dim=1)
