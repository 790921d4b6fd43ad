"""Owns looking at processor, memory and GPU, as this process may use them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from wsi_seg.cores import available_cores, memory_limit, quota_cores
from wsi_seg.doctor.finding import Finding

_GB = 10**9
_PROCESSOR = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")

# Least memory that a command should find free; tiling and small networks stay below it.
_LITTLE = 4 * _GB

# What networks compute faster with, by the flags of Linux.
_FEATURES = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 BF16": "avx512_bf16", "AMX": "amx_bf16"}


def examine_machine() -> Iterator[Finding]:
    """Look at cores, processor, memory and GPUs."""
    yield _cores()
    yield _processor(_PROCESSOR)
    yield _memory()
    yield from _gpus()


def _cores() -> Finding:
    quota, all_of_it = quota_cores(), os.cpu_count() or 1
    why = f"; the quota of the container is {quota}" if quota is not None else ""
    return Finding("cores", f"{available_cores()} of {all_of_it}{why}")


def _processor(info: Path) -> Finding:
    """Find what the processor has for networks, in Linux's list of its flags."""
    try:
        text = info.read_text()
    except OSError:  # not Linux
        return Finding("processor", torch.backends.cpu.get_cpu_capability())
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    found = [name for name, flag in _FEATURES.items() if flag in flags]
    absent = [name for name in _FEATURES if name not in found]
    lacks = f"; it lacks {', '.join(absent)}" if absent else ""
    return Finding("processor", f"{', '.join(found) or 'nothing of what follows'}{lacks}")


def _memory() -> Finding:
    seen, limit = psutil.virtual_memory(), memory_limit()
    free = seen.available if limit is None else min(seen.available, limit)
    value = f"{seen.total / _GB:.1f} GB, {free / _GB:.1f} GB free"
    if limit is not None and limit < seen.total:
        value += f"; the limit of the container is {limit / _GB:.1f} GB"
    if free >= _LITTLE:
        return Finding("memory", value)
    return Finding("memory", value, "note", "infer --max-ram keeps to less")


def _gpus() -> Iterator[Finding]:
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
    """Look at one GPU, and compute something on it."""
    name = f"GPU cuda:{number}"
    try:
        free, total = torch.cuda.mem_get_info(number)
        torch.ones(8, device=f"cuda:{number}").sum().item()
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        return Finding(name, said, "bad", "expected it to add eight numbers; see --device cpu")
    model = torch.cuda.get_device_name(number)
    memory = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    return Finding(name, f"{model}, {memory}, driver {driver}, CUDA {torch.version.cuda}")


def _driver(file: Path) -> str | None:
    """Version of the kernel's NVIDIA driver; None if there is none."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text())
    except OSError:
        return None
    return found[1] if found else "unknown"
