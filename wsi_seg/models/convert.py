"""Owns converting weight files from other software to checkpoints, without executing code.

torch loads them with ``weights_only=True``, which accepts tensors and plain containers only.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from wsi_seg.counts import counted
from wsi_seg.errors import CheckpointError
from wsi_seg.files.half_written import remove_partials
from wsi_seg.models.card import ModelCard
from wsi_seg.models.card_file import read_card_file
from wsi_seg.models.checkpoint import save_checkpoint
from wsi_seg.models.network import build_network
from wsi_seg.models.tensors import (
    COUNTER,
    describe_tensors,
    read_tensors,
    select_network,
    strip_prefixes,
)


def convert_checkpoint(source: Path, card: Path, out: Path) -> ModelCard:
    """Convert a weight file from other software to a checkpoint.

    Parameters
    ----------
    source
        ``.pth``, ``.pt``, ``.ckpt``, ``.bin`` or ``.safetensors`` with the named tensors of an smp
        network for the card's classes (see `ClassTable`), possibly among other tensors and values.
    card
        Model card as JSON or YAML; see `card_file`.
    out
        Path with suffix ``.safetensors``.

    Returns
    -------
    ModelCard
        The card.

    Raises
    ------
    CheckpointError
        If the source contains more than tensors and plain values, does not match the card or
        contains the network twice, or if the card is invalid.
    OutputError
        If the result cannot be written.
    """
    model = read_card_file(card)
    tensors = read_tensors(source)
    network = build_network(model.spec)
    names = network.state_dict().keys()
    found = select_network(tensors, names, source=str(source))
    mismatch = (
        f"{source} does not match the card {card} ({model.architecture} with {model.encoder}, "
        f"{counted(len(model.classes), 'class')})"
    )
    if found is None:
        raise CheckpointError(f"{mismatch}: {_difference(tensors, names)}")
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{mismatch}: {reason}") from error
    save_checkpoint(out, network, model)
    remove_partials((out, out.with_suffix(".json")))
    return model


def _difference(tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> str:
    """Describe which tensors a file lacks, and which it contains."""
    bare = strip_prefixes(tensors)
    missing = [name for name in names if name not in bare and not name.endswith(COUNTER)]
    return (
        f"it lacks {len(missing)} of the network's tensors, such as {missing[0]}; it holds "
        f"{describe_tensors(tensors)}"
    )
