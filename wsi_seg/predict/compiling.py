"""Owns deciding whether a network can be compiled with torch.compile, and whether it pays off."""

import os
import shutil
import sysconfig
from pathlib import Path

import torch

from wsi_seg.errors import ConfigError

# Seconds to compile a network without a cache; 10 to 25 were measured on an H100.
_SECONDS = 30

# Speed of a compiled network relative to eager mode, measured on an H100 and an H200.
_SPEEDUP = 1.9


def should_compile(tiles: int, tiles_per_second: float) -> bool:
    """Return whether compiling on CUDA saves more time than it takes.

    Parameters
    ----------
    tiles
        Number of tiles to predict.
    tiles_per_second
        Rate of the network in eager mode.
    """
    seconds = tiles / tiles_per_second
    return seconds - seconds / _SPEEDUP > _SECONDS


def missing_compiler(device: str) -> str:
    """Return what this machine lacks for compiling networks; empty if nothing is missing.

    torch.compile builds Python extension modules: in C for a GPU (by Triton), in C++ for a CPU.

    Parameters
    ----------
    device
        Torch device, such as ``cuda:0`` or ``cpu``.
    """
    on_gpu = torch.device(device).type == "cuda"
    variable, compilers = ("CC", ("gcc", "clang")) if on_gpu else ("CXX", ("g++", "clang++"))
    if not any(map(shutil.which, (os.environ.get(variable, ""), *compilers))):
        return f"a compiler of C{'' if on_gpu else '++'} ({compilers[0]})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the headers of Python (package python3-dev)"
    return ""


def require_compiler(device: str) -> None:
    """Refuse to compile networks on a machine without a compiler.

    Parameters
    ----------
    device
        See `missing_compiler`.

    Raises
    ------
    ConfigError
        If this machine lacks a compiler or the Python headers.
    """
    if lacks := missing_compiler(device):
        raise ConfigError(
            f"networks cannot be compiled for {device}: this machine lacks {lacks}; install that, "
            "or give --compile off"
        )
