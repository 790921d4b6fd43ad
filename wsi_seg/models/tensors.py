"""Owns reading named tensors from safetensors and torch.save files, without executing code."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from wsi_seg.counts import counted
from wsi_seg.errors import CheckpointError

# Keys under which training frameworks save the weights among other values.
_NESTS = ("state_dict.", "model_state_dict.", "model_state.", "weights.", "model.", "net.")

# Prefixes that module wrappers add to every name.
_WRAPPERS = ("module.", "model.", "network.", "net.", "_orig_mod.")

# Buffer of BatchNorm that old files lack.
COUNTER = "num_batches_tracked"

# Maximum nesting depth, and number of name groups in error messages.
_MAX_DEPTH, _SHOWN = 64, 6


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a file; names in nested mappings are joined by dots.

    Parameters
    ----------
    path
        ``.safetensors``, or with any other suffix a ``torch.save`` file of tensors and plain
        values only.

    Raises
    ------
    CheckpointError
        If the file cannot be read, could execute code, or has no named tensors.
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


def select_network(
    tensors: Mapping[str, torch.Tensor], names: Collection[str], *, source: str
) -> dict[str, torch.Tensor] | None:
    """Select the tensors of one network among others, whatever prefix their names have.

    Parameters
    ----------
    tensors
        See `read_tensors`.
    names
        Names of the network's tensors.
    source
        Name of the file, for errors.

    Returns
    -------
    dict[str, torch.Tensor] or None
        Tensors by these names; None if some are missing, other than BatchNorm's
        ``num_batches_tracked``.

    Raises
    ------
    CheckpointError
        If the file has several such networks.

    Examples
    --------
    >>> found = {"state_dict.model.conv.weight": torch.ones(1), "state_dict.loss": torch.ones(1)}
    >>> select_network(found, ["conv.weight"], source="a.ckpt")
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
            f"{source} holds the network more than once, with the prefixes "
            f"{', '.join(map(repr, starts))}; save only one, with "
            "torch.save(model.state_dict(), PATH)"
        )
    if not starts:
        return None
    return {name: tensors[starts[0] + name] for name in names if starts[0] + name in tensors}


def strip_prefixes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keep the tensors under a state-dict key, if any, and strip prefixes common to all names."""
    for key in _NESTS:
        inner = {n.removeprefix(key): t for n, t in tensors.items() if n.startswith(key)}
        tensors = inner or tensors
    while prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def describe_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Summarise the tensors of a file: the most frequent name prefixes with their counts."""
    groups = Counter(".".join(name.split(".")[:2]) if "." in name else name for name in tensors)
    shown = [f"{name} ({counted(count, 'tensor')})" for name, count in groups.most_common(_SHOWN)]
    return ", ".join([*shown, "..."] if len(groups) > _SHOWN else shown)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file, by name.

    Raises
    ------
    OSError, SafetensorError
        If the file cannot be read or is damaged.
    """
    # Not `load_file`, which leaks 60 bytes per tensor (safetensors 0.8).
    return load(path.read_bytes())


def _torch_content(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch warns about unsupported protocols, and raises if it fails.
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, so loading it could run code; "
            "save only the weights, with torch.save(model.state_dict(), PATH)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({_reason(error)[:100]}); expected a file written by "
            "torch.save, or .safetensors"
        ) from error
    return content


def _named(content: object, before: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested mappings and lists, named by their dotted path."""
    if isinstance(content, torch.Tensor) and before:
        yield before, content
    elif isinstance(content, Mapping | list | tuple) and id(content) not in seen:
        # Visit each object once: containers may be recursive, or shared exponentially often.
        seen.add(id(content))
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        if before.count(".") < _MAX_DEPTH:
            for key, value in items:
                yield from _named(value, f"{before}.{key}" if before else str(key), seen)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
