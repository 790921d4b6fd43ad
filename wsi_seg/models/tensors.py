"""Owns reading named tensors from files, safetensors or torch's own, without ever running code."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from wsi_seg.errors import CheckpointError

# Keys under which training programs keep the weights among other things.
_NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")

# What wrappers put before every name.
_WRAPPERS = ("module.", "model.", "network.", "net.", "_orig_mod.")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, by their names without what wrappers put before all of them.

    Parameters
    ----------
    path
        ``.safetensors``, or anything else for a file of ``torch.save`` that holds tensors and
        plain values alone.

    Raises
    ------
    CheckpointError
        If the file cannot be read, could run code, or holds no named tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return _unwrapped(read_safetensors(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read weights {path}: {_reason(error)}") from error
    return _unwrapped(_torch_tensors(path))


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, by name.

    Raises
    ------
    OSError, SafetensorError
        If the file cannot be read or is damaged.
    """
    # Not `load_file`: what it maps and names (safetensors 0.8) it never frees, 60 bytes a tensor.
    return load(path.read_bytes())


def _torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            # It warns of protocols that it may not read; if so, it says that as an error, too.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, so opening it could run code; "
            "where it was made, save the weights alone: torch.save(model.state_dict(), PATH)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({_reason(error)[:100]}); expected a file written by "
            "torch.save, or .safetensors"
        ) from error
    for key in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise CheckpointError(f"{path} holds no named tensors; expected the weights of a network")
    return {str(name): t for name, t in content.items() if isinstance(t, torch.Tensor)}


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without what wrappers put before all of them."""
    while tensors and (
        prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None)
    ):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
