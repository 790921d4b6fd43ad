"""Owns checkpoints: a safetensors file with the weights of a network and its model card.

The card is JSON in the metadata of the file, so weights and card stay together; a readable copy is
written next to the file. Loading safetensors cannot execute code; formats that can (pickles:
``.pt``, ``.pth``, ``.ckpt``) are refused.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from wsi_seg.errors import CheckpointError, ConfigError, OutputError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.models.card import ModelCard, card_from_json
from wsi_seg.models.lora import merged_state
from wsi_seg.models.network import blank_network
from wsi_seg.models.tensors import read_safetensors

_KEY = "wsi_seg"

# Maximum header size. A network of 10,000 tensors needs 2 MB; more is an attack or damage.
_MAX_HEADER_BYTES = 2**24

# Magic bytes of formats that can contain pickles: zip archives and pickle protocols 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def save_checkpoint(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a network with its card, and a readable copy of the card as JSON next to it.

    Both files are written atomically.

    Parameters
    ----------
    path
        Path with suffix ``.safetensors``; the copy of the card has the suffix ``.json``.
    network
        Network built by `build_network` from ``card.spec``; LoRA adapters are merged.
    card
        Card to embed in the file.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"got checkpoint path {path}; expected a name ending in .safetensors")
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in merged_state(network).items()
    }
    values = card.to_json()
    # A single entry: safetensors writes several in random order.
    write_atomic(path, save(tensors, {_KEY: json.dumps(values, allow_nan=False)}))
    pretty = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path.with_suffix(".json"), pretty + "\n")


def load_checkpoint(path: Path | str) -> tuple[nn.Module, ModelCard]:
    """Load a network and its card, without drawing from torch's global generator.

    Parameters
    ----------
    path
        Checkpoint, such as ``run/best.safetensors``.

    Returns
    -------
    nn.Module, ModelCard
        The network in eval mode on the CPU, and its card.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or a pickle, has no card, or its weights do not match the
        card.

    Examples
    --------
    >>> network, card = load_checkpoint("run/best.safetensors")  # doctest: +SKIP
    """
    path = Path(path)
    card = read_card(path)
    try:
        with torch.random.fork_rng(devices=[]):
            network = blank_network(card.spec)
        network.load_state_dict(read_safetensors(path))
    except (SafetensorError, RuntimeError, ConfigError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"checkpoint {path}: the weights do not match its model card ({card.architecture}, "
            f"{card.encoder}): {reason}"
        ) from error
    return network.eval(), card


def read_card(path: Path) -> ModelCard:
    """Read the model card of a checkpoint without its weights.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, a pickle, or has no valid card.
    """
    _require_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged ({error}); expected a file written by `wsi-seg train`"
        ) from error
    if text is None:
        raise CheckpointError(
            f"checkpoint {path} has no model card; expected a file written by `wsi-seg train`; "
            "use a file of plain weights as model.weights of a recipe"
        )
    try:
        return card_from_json(text)
    except ConfigError as error:
        raise CheckpointError(
            f"checkpoint {path} has a damaged model card: {' '.join(str(error).split())[:300]}"
        ) from error


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint's tensors, without its card, in hexadecimal.

    Raises
    ------
    CheckpointError
        If it is not a safetensors file.
    """
    _require_safetensors(path)
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


# Model that is shipped with the package, documented in the README.md next to it.
_SHIPPED = Path(__file__).parent / "shipped" / "nuclei_he.safetensors"


def shipped_checkpoint() -> Path:
    """Return the path of the shipped model: nuclei in H&E."""
    return _SHIPPED


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the best checkpoint of the last training run under a folder; None if there is none."""
    # With train.top_k above 1, other networks may be newer than the best.
    every = list(folder.rglob("best.safetensors")) or list(folder.rglob("*.safetensors"))
    found = sorted(every, key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _require_safetensors(path: Path) -> None:
    """Refuse files that are not safetensors, by content."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; expected a .safetensors file")
    with path.open("rb") as file:
        head = file.read(9)
    length, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    # Check for a JSON header first: its length may look like the magic bytes of a pickle.
    if head[8:] == b"{" and length <= min(size - 8, _MAX_HEADER_BYTES):
        return
    if head.startswith(_PICKLES):
        raise CheckpointError(
            f"checkpoint {path} is a pickle, which can run code when it is loaded; expected a "
            ".safetensors file written by `wsi-seg train`"
        )
    raise CheckpointError(
        f"checkpoint {path} is not a safetensors file, or is truncated ({size} bytes, header of "
        f"{length}); expected a file written by `wsi-seg train`"
    )
