"""Owns which files of other programs are networks, the cards they go by, and what they take."""

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
    """Whether a file is, by its name, a network of another program."""
    return path.suffix in (".pt2", ".onnx", ".pt")


def open_network(path: Path, device: torch.device = _CPU, *, trust: bool = False) -> FileNetwork:
    """Read the network of a file.

    Parameters
    ----------
    path
        ``.pt2`` of torch.export, ``.onnx``, or ``.pt`` of TorchScript.
    device
        Where it will compute.
    trust
        Whether reading may run code that is in the file. TorchScript always can.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, does not take one image, or needs trust.
    ConfigError
        If it cannot run on the device.
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
            f"{path} may be TorchScript, which can run code when it is read; where you trust its "
            "source, repeat with --trust; weights alone become a checkpoint by `wsi-seg "
            "import-weights`; else ask for an ONNX file"
        )
    return ScriptNetwork(path, device)


def card_for(network: FileNetwork, card: ModelCard | Path | None = None) -> ModelCard:
    """Card of a file's network: the one that is given, else the one inside, else next to it.

    Raises
    ------
    CheckpointError
        If there is none, or it is not a card.
    """
    if isinstance(card, ModelCard):
        return card
    if card is not None:
        return read_card_file(card)
    path = network.path
    if (inside := network.stated) is not None:
        return card_of_values(yaml.safe_load(inside), source=f"the card in {path}")
    if (found := card_next_to(path)) is not None:
        return read_card_file(found)
    raise CheckpointError(
        f"{path} has no model card; expected {path.with_suffix('.yaml').name} next to it, or "
        "--card FILE, with classes, mpp, tile_px, mean, std and output"
    )


def network_digest(path: Path, card: ModelCard) -> str:
    """SHA-256 of a file and of its card, which both decide what is predicted."""
    stated = json.dumps(card.to_json(), sort_keys=True)
    return hashlib.sha256(f"{digest_of(path)} {stated}".encode()).hexdigest()


def measure_file(network: FileNetwork, card: ModelCard) -> MemoryEstimate:
    """Run the network of a file once on an image of zeros: what it takes, and whether it fits.

    Parameters
    ----------
    network
        On the CPU.
    card
        Says how many channels, classes and pixels there are.

    Raises
    ------
    CheckpointError
        If the file does not fit its card.
    """
    path = network.path
    network.form.require_fits(path, card.in_channels, card.tile_px)
    images = torch.zeros(1, card.in_channels, card.tile_px, card.tile_px)
    with torch.no_grad(), _LargestOutput() as outputs:
        shape = tuple(network(images).shape)
    expected = (1, card.classes.outputs, card.tile_px, card.tile_px)
    if shape != expected:
        raise CheckpointError(
            f"{path} gives {shape} for an image {tuple(images.shape)}; expected {expected}: a map "
            f"of each class ({', '.join(card.classes.names)})"
            f"{' after one of the background' if card.classes.is_exclusive else ''}; correct the "
            "classes of the card, or export what is wanted"
        )
    largest = outputs.values
    if isinstance(network, OnnxNetwork):
        largest = max(largest, measure_onnx(path, images))
    return estimate_of(network.parameters_count, largest, images.shape[-1])


class _LargestOutput(TorchDispatchMode):
    """Notes the values of the largest tensor that any operator of torch gives."""

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
