"""Owns SHA-256 digests of model files and of networks in memory."""

import hashlib
from pathlib import Path

import torch
from torch import nn


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's state, names and values, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        data = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(data.numpy().data)
    return digest.hexdigest()
