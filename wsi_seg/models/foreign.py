"""Owns opening networks exported from other software: their format, card and memory use."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from wsi_seg.errors import CheckpointError
from wsi_seg.models.card import ModelCard
from wsi_seg.models.card_file import card_next_to, card_of_values, read_card_file
from wsi_seg.models.digest import digest_of
from wsi_seg.models.exported_file import ExportedNetwork
from wsi_seg.models.file_network import FileNetwork
from wsi_seg.models.memory_estimate import MemoryEstimate, estimate_of
from wsi_seg.models.onnx_file import OnnxNetwork, measure_onnx
from wsi_seg.models.script_file import ScriptNetwork

_CPU = torch.device("cpu")


def is_network_file(path: Path) -> bool:
    """Return whether a file is an exported network, by its suffix."""
    return path.suffix in (".pt2", ".onnx", ".pt")


def open_network(path: Path, device: torch.device = _CPU, *, trust: bool = False) -> FileNetwork:
    """Open an exported network.

    Parameters
    ----------
    path
        ``.pt2`` (torch.export), ``.onnx`` or ``.pt`` (TorchScript).
    device
        Device on which to run the network.
    trust
        Whether loading may execute code in the file; loading TorchScript always may.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, does not take one image, or needs ``trust``.
    ConfigError
        If the network cannot run on the device.
    MissingLibraryError
        If a library is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; expected a network")
    if path.suffix == ".onnx":
        return OnnxNetwork(path, device)
    if path.suffix == ".pt2":
        return ExportedNetwork(path, device, trust=trust)
    if not trust:
        raise CheckpointError(
            f"{path} may be TorchScript, which can run code when it is loaded; if you trust its "
            "source, retry with --trust; convert plain weights with `wsi-seg import-weights`; "
            "otherwise use an ONNX file"
        )
    return ScriptNetwork(path, device)


def card_for(network: FileNetwork, card: ModelCard | Path | None = None) -> ModelCard:
    """Return the card of an exported network: given, embedded in the file, or next to it.

    Raises
    ------
    CheckpointError
        If there is no card, or it is invalid.
    """
    if isinstance(card, ModelCard):
        return card
    if card is not None:
        return read_card_file(card)
    path = network.path
    if (embedded := network.embedded_card) is not None:
        return card_of_values(yaml.safe_load(embedded), source=f"the card in {path}")
    if (found := card_next_to(path)) is not None:
        return read_card_file(found)
    raise CheckpointError(
        f"{path} has no model card; expected {path.with_suffix('.yaml').name} next to it, or "
        "--card FILE, with classes, mpp, tile_px, mean, std and output"
    )


def network_digest(path: Path, card: ModelCard) -> str:
    """Return the SHA-256 of a file together with its card, which both affect predictions."""
    values = json.dumps(card.to_json(), sort_keys=True)
    return hashlib.sha256(f"{digest_of(path)} {values}".encode()).hexdigest()


def measure_file(network: FileNetwork, card: ModelCard) -> MemoryEstimate:
    """Run an exported network once on zeros to measure its memory and check it against its card.

    Parameters
    ----------
    network
        Network on the CPU.
    card
        Card with the expected channels, classes and tile.

    Raises
    ------
    CheckpointError
        If the network does not match its card.
    """
    path = network.path
    network.form.require_fits(path, card.in_channels, card.tile_px)
    images = torch.zeros(1, card.in_channels, card.tile_px, card.tile_px)
    with torch.no_grad(), _LargestOutput() as outputs:
        shape = tuple(network(images).shape)
    expected = (1, card.classes.outputs, card.tile_px, card.tile_px)
    if shape != expected:
        raise CheckpointError(
            f"{path} returns {shape} for an image {tuple(images.shape)}; expected {expected}: a "
            f"map per class ({', '.join(card.classes.names)})"
            f"{' after that of the background' if card.classes.is_exclusive else ''}; correct the "
            "classes of the card, or export another output"
        )
    largest = outputs.values
    if isinstance(network, OnnxNetwork):
        largest = max(largest, measure_onnx(path, images))
    return estimate_of(network.parameters_count, largest, images.shape[-1])


class _LargestOutput(TorchDispatchMode):
    """Records the number of values of the largest tensor that any torch operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (torch's)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        found = func(*args, **(kwargs or {}))
        parts = found if isinstance(found, list | tuple) else [found]
        sizes = [part.numel() for part in parts if isinstance(part, torch.Tensor)]
        self.values = max(self.values, *sizes, 0)
        return found
