"""Owns checks of GPUs and their driver, as torch sees them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from wsi_seg.doctor.finding import Finding

_GB = 10**9
_DRIVER = Path("/proc/driver/nvidia/version")


def examine_gpus() -> Iterator[Finding]:
    """Check the driver, and each GPU that torch can use."""
    driver = _driver(_DRIVER)
    if not torch.cuda.is_available():
        if driver is None:
            advice = "networks compute on the CPU"
            yield Finding("GPU", "no NVIDIA driver here", "note", advice)
            return
        built = torch.version.cuda
        value = f"driver {driver}, but torch {torch.__version__} cannot use it"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        advice = (
            f"CUDA_VISIBLE_DEVICES={hidden!r} hides it"
            if hidden in ("", "-1")
            else f"it was built for CUDA {built}: update the driver, or install an older torch"
            if built
            else "it was built without CUDA: install torch for CUDA"
        )
        yield Finding("GPU", value, "note", advice)
        return
    for number in range(torch.cuda.device_count()):
        yield _gpu(number, driver or "unknown")


def _gpu(number: int, driver: str) -> Finding:
    """Check one GPU by computing something on it."""
    name = f"GPU cuda:{number}"
    try:
        free, total = torch.cuda.mem_get_info(number)
        torch.ones(8, device=f"cuda:{number}").sum().item()
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        return Finding(name, line, "bad", "expected it to add eight numbers; see --device cpu")
    model = torch.cuda.get_device_name(number)
    memory = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    return Finding(name, f"{model}, {memory}, driver {driver}, CUDA {torch.version.cuda}")


def _driver(file: Path) -> str | None:
    """Version of the NVIDIA kernel driver; None if it is not loaded."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text())
    except OSError:
        return None
    return found[1] if found else "unknown"
