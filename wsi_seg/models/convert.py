"""Owns taking over weights from files that can hold code, without ever running any.

torch's own reader may accept tensors and plain containers only; whatever else is in the
file makes it refuse the file.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from wsi_seg.errors import CheckpointError
from wsi_seg.models.card import ModelCard
from wsi_seg.models.card_file import read_card_file
from wsi_seg.models.checkpoint import save_checkpoint
from wsi_seg.models.network import build_network
from wsi_seg.models.tensors import COUNTER, describe_tensors, of_network, read_tensors, unwrapped


def convert_checkpoint(source: Path, card: Path, out: Path) -> ModelCard:
    """Write a checkpoint of ours from a foreign file of weights.

    Parameters
    ----------
    source
        ``.pth``, ``.pt``, ``.ckpt``, ``.bin`` or ``.safetensors``: names and tensors, alone or
        with others and plain values. They have to be those of an smp network of the card's
        classes, see `ClassTable`.
    card
        JSON of the form that is next to every checkpoint of ours, or YAML; see `card_file`.
    out
        Ends with ``.safetensors``.

    Raises
    ------
    CheckpointError
        If the source holds more than tensors and plain values, does not fit the card or holds such
        a network twice, or the card is not one.
    OutputError
        If the result cannot be written.
    """
    stated = read_card_file(card)
    tensors = read_tensors(source)
    network = build_network(stated.spec)
    names = network.state_dict().keys()
    found = of_network(tensors, names, source=str(source))
    misfit = (
        f"{source} does not fit the card {card} ({stated.architecture} with {stated.encoder}, "
        f"{len(stated.classes)} classes)"
    )
    if found is None:
        raise CheckpointError(f"{misfit}: {_difference(tensors, names)}")
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{misfit}: {reason}") from error
    save_checkpoint(out, network, stated)
    return stated


def _difference(tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> str:
    """Say what a file lacks, and what is in it."""
    bare = unwrapped(tensors)
    missing = [name for name in names if name not in bare and not name.endswith(COUNTER)]
    return (
        f"it lacks {len(missing)} of the network's tensors, such as {missing[0]}; it holds "
        f"{describe_tensors(tensors)}"
    )
