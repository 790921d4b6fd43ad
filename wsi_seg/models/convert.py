"""Owns taking over weights from files that can hold code, without ever running any.

torch's own reader may accept tensors and plain containers only; whatever else is in the
file makes it refuse the file.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.checkpoint import ModelCard, card_from_json, save_checkpoint
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
        JSON of the form that is next to every checkpoint of ours.
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
    stated = _read_card(card)
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


def _read_card(path: Path) -> ModelCard:
    try:
        return card_from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot read card {path} ({error.strerror or error}); expected JSON like the file "
            "next to a checkpoint of `wsi-seg train`"
        ) from error
    except (ValidationError, ConfigError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a model card: {' '.join(str(error).split())[:300]}"
        ) from error
