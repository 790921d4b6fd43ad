"""Owns taking over weights from files that can hold code, without ever running any.

torch's own reader is told to accept tensors and plain containers only; whatever else is in the
file makes it refuse the file.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import ValidationError

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.checkpoint import ModelCard, card_from_json, save_checkpoint
from wsi_seg.models.network import build_network

# Keys under which training programs keep the weights among other things.
_NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")

# What wrappers put before every name.
_WRAPPERS = ("module.", "model.", "network.", "net.", "_orig_mod.")


def convert_checkpoint(source: Path, card: Path, out: Path) -> ModelCard:
    """Write a checkpoint of ours from a foreign file of weights.

    Parameters
    ----------
    source
        ``.pth``, ``.pt``, ``.ckpt`` or ``.bin``: names and tensors, alone or beside other plain
        values. They have to be those of an smp network, one sigmoid per class.
    card
        JSON of the form that lies beside every checkpoint of ours.
    out
        Ends with ``.safetensors``.

    Raises
    ------
    CheckpointError
        If the source holds more than tensors and plain values, or does not fit the card, or the
        card is none.
    OutputError
        If the result cannot be written.
    """
    stated = _read_card(card)
    tensors = _tensors_of(source)
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
            "beside a checkpoint of `wsi-seg train`"
        ) from error
    except (ValidationError, ConfigError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a model card: {' '.join(str(error).split())[:300]}"
        ) from error


def _tensors_of(source: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            # It warns of protocols that it may not read; if so, it says that as an error, too.
            warnings.simplefilter("ignore")
            content = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {source}") from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"{source} holds more than tensors and plain values, so opening it could run code; "
            "where it was made, save the weights alone: torch.save(model.state_dict(), PATH)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{source} cannot be read ({' '.join(str(error).split())[:100]}); expected a file "
            "written by torch.save"
        ) from error
    for key in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise CheckpointError(f"{source} holds no named tensors; expected the weights of a network")
    tensors = {str(name): t for name, t in content.items() if isinstance(t, torch.Tensor)}
    return _unwrapped(tensors)


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without what wrappers put before all of them."""
    while prefix := next(
        (p for p in _WRAPPERS if all(name.startswith(p) for name in tensors)), None
    ):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
