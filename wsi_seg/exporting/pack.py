"""Owns exporting checkpoints to the formats that other programs run.

Exported models include normalisation and activation: they take RGB images of 0 to 255 and return
probabilities. Each file is run and compared with our own predictions before it is renamed into
place. It embeds the model card, so `wsi-seg infer` reads it without further files.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim, ExportedProgram

from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.exporting.bioimageio import OPSET, Credits, write_bioimageio
from wsi_seg.extras import naming_extra
from wsi_seg.files.atomic import atomic_path
from wsi_seg.files.half_written import remove_partials
from wsi_seg.models import ModelCard, load_checkpoint, size_multiple
from wsi_seg.models.file_network import CARD
from wsi_seg.models.foreign import open_network
from wsi_seg.predict.predictor import PROBABILITY_STEPS, Predictor

# Largest accepted difference from our own probabilities, which are quantised in steps of 1 / 4080.
_TOLERANCE = 1e-3

# Number of float32 weights that fit an ONNX file, which protobuf limits to 2 GiB.
_ONNX_VALUES = 2**29

# Number of tiles of the second batch that is compared, and their side if the network takes any.
_TILES, _SIDE = 3, 128


@dataclass(frozen=True, slots=True)
class PackTargets:
    """Files to write; None leaves one out.

    Parameters
    ----------
    onnx
        ``.onnx``, for onnxruntime, OpenCV and others.
    torch_export
        ``.pt2`` of torch.export, for torch.
    torchscript
        ``.pt``, for programs with libtorch.
    bioimageio
        ``.zip`` of a bioimage.io model, for QuPath, ilastik and others.

    Examples
    --------
    >>> PackTargets(onnx=Path("nuclei.onnx"), bioimageio=Path("nuclei.zip")).torchscript
    """

    onnx: Path | None = None
    torch_export: Path | None = None
    torchscript: Path | None = None
    bioimageio: Path | None = None

    def __post_init__(self) -> None:
        endings = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".pt",
                   "bioimageio": ".zip"}  # fmt: skip
        given = {name: path for name in endings if (path := getattr(self, name)) is not None}
        if not given:
            raise ConfigError("got no file to write; expected at least one, such as model.onnx")
        for name, path in given.items():
            if path.suffix != endings[name]:
                raise ConfigError(f"got {name} {path}; expected a name ending in {endings[name]}")


@dataclass(frozen=True, slots=True)
class PackReport:
    """Files that were written, and the images that they take.

    Parameters
    ----------
    differences
        Largest difference of each file from our own probabilities.
    side_px
        Side of the input images; None if any multiple of ``multiple`` from twice that on works.
    multiple
        See ``side_px``.
    """

    differences: dict[Path, float] = field(default_factory=dict)
    side_px: int | None = None
    multiple: int = 1

    def lines(self) -> list[str]:
        """Report as lines of text."""
        sides = (
            f"sides a multiple of {self.multiple} from {2 * self.multiple} on"
            if self.side_px is None
            else f"{self.side_px} x {self.side_px}"
        )
        return [
            f"{path}: largest difference from our own probabilities {difference:.1e}"
            for path, difference in self.differences.items()
        ] + [f"input: float32 RGB 0 to 255, (batch, 3, height, width), {sides}; probabilities out"]

    def to_json(self) -> dict[str, object]:
        """Report as plain JSON values."""
        found = {str(path): difference for path, difference in self.differences.items()}
        return {"differences": found, "side_px": self.side_px, "multiple": self.multiple}


class PackedNetwork(nn.Module):
    """A network that includes its normalisation and activation.

    Maps images ``(B, C, H, W)`` float32 of 0 to 255 to probabilities ``(B, outputs, H, W)``; if the
    classes are exclusive, the first output is the background.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self.exclusive = card.classes.is_exclusive
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Predict probabilities ``(B, outputs, H, W)`` of images ``(B, C, H, W)``."""
        found: torch.Tensor = self.network(image * self.scale + self.shift)
        return found.softmax(1) if self.exclusive else found.sigmoid()


def pack_model(
    checkpoint: Path | str,
    targets: PackTargets,
    credits: Credits = Credits(),  # noqa: B008 (frozen)
) -> PackReport:
    """Export a checkpoint to formats of other programs, and check the output of each file.

    Parameters
    ----------
    checkpoint
        ``.safetensors`` checkpoint of wsi_seg.
    targets
        Files to write.
    credits
        Name, authors and licence, for bioimage.io.

    Returns
    -------
    PackReport
        Largest difference of each file from our own probabilities, on noise and synthetic tissue.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or damaged.
    OutputError
        If the network cannot be exported, a file cannot be written, or its output differs from
        ours.
    MissingLibraryError
        If the library that a format requires is not installed.

    Examples
    --------
    >>> targets = PackTargets(onnx=Path("best.onnx"))
    >>> pack_model("run/best.safetensors", targets)  # doctest: +SKIP
    """
    network, card = load_checkpoint(checkpoint)
    packer = _Packer(network, card)
    written: dict[Path, float] = {}
    if targets.torch_export is not None:
        written[targets.torch_export] = packer.write(targets.torch_export)
    if targets.onnx is not None:
        written[targets.onnx] = packer.write(targets.onnx)
    if targets.torchscript is not None:
        written[targets.torchscript] = packer.write(targets.torchscript)
    if targets.bioimageio is not None:
        written[targets.bioimageio] = packer.bioimageio(targets.bioimageio, credits)
    remove_partials(written)
    return PackReport(written, packer.side_px, packer.multiple)


class _Packer:
    """Writes one network, which is traced once, in all formats."""

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        # torch.export traces one path, for sides that every downsampling step divides evenly.
        self.multiple = max(size_multiple(network), _reduction(network))
        side = card.tile_px + -card.tile_px % self.multiple
        channels = card.in_channels
        # The card of the packed network: values of 0 to 255 in, probabilities out.
        self._card = replace(
            card,
            mean=(0.0,) * channels,
            std=(1 / 255,) * channels,
            tile_px=side,
            output="probabilities",
        )
        self._text = json.dumps(self._card.to_json(), allow_nan=False)
        self._packed = PackedNetwork(network, card).eval()
        self._own = Predictor(network, card, device="cpu", precision="fp32")
        self._example = torch.rand(2, channels, side, side) * 255
        self._program, self.side_px = self._exported()
        for node in self._program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it contains paths of this machine

    def write(self, path: Path) -> float:
        """Write one file, and return its largest difference from our own probabilities.

        Raises
        ------
        OutputError
            If the difference exceeds the tolerance.
        """
        with atomic_path(path) as partial, _renamed(partial, path.suffix) as file:
            with _quiet():
                {".onnx": self._onnx, ".pt2": self._pt2, ".pt": self._script}[path.suffix](file)
            return self._difference(file, path)

    def bioimageio(self, path: Path, credits: Credits) -> float:
        """Write an archive of TorchScript and ONNX weights, and return the larger difference."""
        folder = path.parent
        script, onnx = (folder / f".{path.stem}{suffix}" for suffix in (".pt", ".onnx"))
        tile = torch.from_numpy(_tissue(self._example.shape[-1], 1, self._card.in_channels))
        try:
            difference = max(self.write(script), self.write(onnx))
            with torch.no_grad():
                expected = self._packed(tile.float()).numpy()
            with atomic_path(path) as partial:
                write_bioimageio(
                    partial, self._card, script, onnx, tile.float().numpy(), expected,
                    multiple=None if self.side_px else self.multiple, credits=credits,
                )  # fmt: skip
        finally:
            for file in (script, onnx):
                file.unlink(missing_ok=True)
        return difference

    def _exported(self) -> tuple[ExportedProgram, int | None]:
        """Export with a dynamic batch size, and dynamic sides if the network supports them."""
        height, width = Dim("height", max=4096), Dim("width", max=4096)
        if self.multiple > 1:
            height, width = self.multiple * height, self.multiple * width
        sides, batch = {2: height, 3: width}, {0: Dim("batch", max=4096)}
        with torch.no_grad(), _quiet():
            try:
                any_side = torch.export.export(
                    self._packed, (self._example,), dynamic_shapes=(batch | sides,)
                )
            except (RuntimeError, ValueError, AssertionError, TypeError):
                pass
            else:
                return any_side, None
            try:
                one_side = torch.export.export(
                    self._packed, (self._example,), dynamic_shapes=(batch,)
                )
            except (RuntimeError, ValueError, AssertionError, TypeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise OutputError(f"the network cannot be exported: {reason}") from error
        return one_side, self._example.shape[-1]

    def _pt2(self, path: Path) -> None:
        torch.export.save(self._program, path, extra_files={CARD: self._text})

    def _onnx(self, path: Path) -> None:
        count = sum(parameter.numel() for parameter in self._packed.parameters())
        if count > _ONNX_VALUES:
            raise OutputError(
                f"got {count} weights, more than fit an ONNX file; expected at most "
                f"{_ONNX_VALUES}; write --torch-export instead"
            )
        with naming_extra("writing ONNX"):
            found = torch.onnx.export(
                self._program,
                input_names=["image"],
                output_names=["probabilities"],
                opset_version=OPSET,
                verbose=False,
            )
        assert found is not None
        found.model.metadata_props["wsi_seg"] = self._text
        found.save(path)

    def _script(self, path: Path) -> None:
        with torch.no_grad():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                self._packed, self._example, check_trace=False
            )
        torch.jit.save(traced, path, _extra_files={CARD: self._text})

    def _difference(self, file: Path, path: Path) -> float:
        """Return the largest difference of a file from our own probabilities, on two batches."""
        network = open_network(file, trust=True)
        side, channels = self._example.shape[-1], self._card.in_channels
        other = side if self.side_px else max(2 * self.multiple, _SIDE + -_SIDE % self.multiple)
        largest = 0.0
        for count, px in ((1, side), (_TILES, other)):
            for tiles in (_noise(px, count, channels), _tissue(px, count, channels)):
                images = torch.from_numpy(tiles)
                with torch.no_grad():
                    found = network(images.float())[:, self._packed.exclusive :]
                own = self._own.predict(images.permute(0, 2, 3, 1).contiguous())
                largest = max(largest, float((found - own / PROBABILITY_STEPS).abs().max()))
        if not largest <= _TOLERANCE:
            raise OutputError(
                f"{path}: its probabilities differ by {largest:.2g} from our own; expected at most "
                f"{_TOLERANCE}; the file was not written"
            )
        return largest


def _reduction(network: nn.Module) -> int:
    """Return the downsampling factor of the deepest features."""
    return int(getattr(getattr(network, "encoder", None), "output_stride", 1))


def _noise(side: int, count: int, channels: int) -> NDArray[np.uint8]:
    """Make tiles ``(B, C, H, W)`` of uniform noise."""
    size = (count, channels, side, side)
    return np.random.default_rng(side).integers(0, 256, size, dtype=np.uint8)


def _tissue(side: int, count: int, channels: int) -> NDArray[np.uint8]:
    """Make tiles ``(B, C, H, W)`` with soft dark purple blobs on pink, like H&E."""
    random = torch.Generator().manual_seed(side)
    coarse = torch.randn(count, 1, max(2, side // 16), max(2, side // 16), generator=random)
    blobs = nn.functional.interpolate(coarse, (side, side), mode="bicubic").sigmoid()
    pink, purple = (
        torch.tensor([values[index % 3] for index in range(channels)]).reshape(1, -1, 1, 1)
        for values in ((236.0, 190.0, 214.0), (92.0, 58.0, 140.0))
    )
    return (pink + (purple - pink) * blobs).round().clamp(0, 255).to(torch.uint8).numpy()


@contextmanager
def _renamed(partial: Path, suffix: str) -> Iterator[Path]:
    """Yield a path with the suffix that readers require, and rename its file to ``partial``."""
    file = partial.with_name(partial.name + suffix)
    try:
        yield file
        file.replace(partial)
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and logs of exporters, whose output is checked here anyway."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.export", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
