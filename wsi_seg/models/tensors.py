"""Owns reading named tensors from files, safetensors or torch's own, without ever running code."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from wsi_seg.errors import CheckpointError

# Keys under which training programs keep the weights among other things.
_NESTS = ("state_dict.", "model_state_dict.", "model_state.", "weights.", "model.", "net.")

# What wrappers put before every name.
_WRAPPERS = ("module.", "model.", "network.", "net.", "_orig_mod.")

# Counters of BatchNorm, which old files lack.
COUNTER = "num_batches_tracked"

# Names within names that are looked into, and groups of names that errors list.
_DEEPEST, _SHOWN = 64, 6


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, by their names; those of inner mappings have its key before them.

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
            return read_safetensors(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read weights {path}: {_reason(error)}") from error
    found = dict(_named(_torch_content(path), "", set()))
    if not found:
        raise CheckpointError(f"{path} holds no named tensors; expected the weights of a network")
    return found


def of_network(
    tensors: Mapping[str, torch.Tensor], names: Collection[str], *, source: str
) -> dict[str, torch.Tensor] | None:
    """Tensors of one network among others, whatever wrappers and nests put before their names.

    Parameters
    ----------
    tensors
        See `read_tensors`.
    names
        What the network's tensors are called.
    source
        Where they come from; named in errors.

    Returns
    -------
    dict[str, torch.Tensor] or None
        By these names; None where some are missing. Counters of BatchNorm may be.

    Raises
    ------
    CheckpointError
        If the file has several such networks.

    Examples
    --------
    >>> found = {"state_dict.model.conv.weight": torch.ones(1), "state_dict.loss": torch.ones(1)}
    >>> of_network(found, ["conv.weight"], source="a.ckpt")
    {'conv.weight': tensor([1.])}
    """
    needed = [name for name in names if not name.endswith(COUNTER)]
    ends = [name.removesuffix(needed[0]) for name in tensors if name.endswith(needed[0])]
    starts = [
        start
        for start in ends
        if start[-1:] in ("", ".") and all(start + name in tensors for name in needed)
    ]
    if len(starts) > 1:
        raise CheckpointError(
            f"{source} holds such a network more than once: {', '.join(map(repr, starts))} are "
            "before the names of its tensors; save the one that is wanted alone, with "
            "torch.save(model.state_dict(), PATH)"
        )
    if not starts:
        return None
    return {name: tensors[starts[0] + name] for name in names if starts[0] + name in tensors}


def unwrapped(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the key that programs keep weights under, without what is before all names."""
    for key in _NESTS:
        inner = {n.removeprefix(key): t for n, t in tensors.items() if n.startswith(key)}
        tensors = inner or tensors
    while prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def describe_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Say what a file holds: how many tensors begin with each of the first names."""
    groups = Counter(".".join(name.split(".")[:2]) if "." in name else name for name in tensors)
    shown = [f"{name} ({count} tensors)" for name, count in groups.most_common(_SHOWN)]
    return ", ".join([*shown, "..."] if len(groups) > _SHOWN else shown)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, by name.

    Raises
    ------
    OSError, SafetensorError
        If the file cannot be read or is damaged.
    """
    # Not `load_file`: what it maps and names (safetensors 0.8) it never frees, 60 bytes a tensor.
    return load(path.read_bytes())


def _torch_content(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # It warns of protocols that it may not read; if so, it says that as an error, too.
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
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
    return content


def _named(content: object, before: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of mappings and lists within each other, named by the way to them."""
    if isinstance(content, torch.Tensor) and before:
        yield before, content
    elif isinstance(content, Mapping | list | tuple) and id(content) not in seen:
        # Each once: a file may say that a mapping is in itself, or in ten that are in ten others.
        seen.add(id(content))
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        if before.count(".") < _DEEPEST:
            for key, value in items:
                yield from _named(value, f"{before}.{key}" if before else str(key), seen)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
