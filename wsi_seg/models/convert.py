"""Owns taking over weights from files that can hold code, without ever running any.

torch's own reader may accept tensors and plain containers only; whatever else is in the
file makes it refuse the file.
"""

from pathlib import Path

from pydantic import ValidationError

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.checkpoint import ModelCard, card_from_json, save_checkpoint
from wsi_seg.models.network import build_network
from wsi_seg.models.tensors import read_tensors


def convert_checkpoint(source: Path, card: Path, out: Path) -> ModelCard:
    """Write a checkpoint of ours from a foreign file of weights.

    Parameters
    ----------
    source
        ``.pth``, ``.pt``, ``.ckpt`` or ``.bin``: names and tensors, alone or with other plain
        values. They have to be those of an smp network of the card's classes, see `ClassTable`.
    card
        JSON of the form that is next to every checkpoint of ours.
    out
        Ends with ``.safetensors``.

    Raises
    ------
    CheckpointError
        If the source holds more than tensors and plain values, or does not fit the card, or the
        card is not one.
    OutputError
        If the result cannot be written.
    """
    stated = _read_card(card)
    tensors = read_tensors(source)
    network = build_network(stated.spec)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(
            f"{source} does not fit the card {card} ({stated.architecture} with {stated.encoder}, "
            f"{len(stated.classes)} classes): {reason}"
        ) from error
    save_checkpoint(out, network, stated)
    return stated


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
