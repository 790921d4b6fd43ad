"""Owns checks of the processor and memory that are available to this process."""

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from wsi_seg.cores import available_cores, memory_limit, quota_cores
from wsi_seg.doctor.finding import Finding

_GB = 10**9
_PROCESSOR = Path("/proc/cpuinfo")

# Free memory that suffices for tiling and small networks.
_ENOUGH = 4 * _GB

# Processor features that make networks faster, with their flags in Linux.
_FEATURES = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 BF16": "avx512_bf16", "AMX": "amx_bf16"}


def examine_machine() -> Iterator[Finding]:
    """Check cores, processor and memory."""
    yield _cores()
    yield _processor(_PROCESSOR)
    yield _memory()


def _cores() -> Finding:
    quota, all_of_it = quota_cores(), os.cpu_count() or 1
    why = f"; the quota of the container is {quota}" if quota is not None else ""
    return Finding("cores", f"{available_cores()} of {all_of_it}{why}")


def _processor(info: Path) -> Finding:
    """Check which features for networks the processor has, from its flags in Linux."""
    try:
        text = info.read_text()
    except OSError:  # not Linux
        return Finding("processor", platform.processor() or "unknown")
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    found = [name for name, flag in _FEATURES.items() if flag in flags]
    absent = [name for name in _FEATURES if name not in found]
    lacks = f"; without {', '.join(absent)}" if absent else ""
    return Finding("processor", f"{', '.join(found) or 'nothing of what follows'}{lacks}")


def _memory() -> Finding:
    seen, limit = psutil.virtual_memory(), memory_limit()
    free = seen.available if limit is None else min(seen.available, limit)
    value = f"{seen.total / _GB:.1f} GB, {free / _GB:.1f} GB free"
    if limit is not None and limit < seen.total:
        value += f"; the limit of the container is {limit / _GB:.1f} GB"
    if free >= _ENOUGH:
        return Finding("memory", value)
    return Finding("memory", value, "note", "infer --max-ram keeps to less")
