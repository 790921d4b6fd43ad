"""Owns the report of what ``infer`` would choose on this machine, and why."""

from collections.abc import Iterator

import torch

from wsi_seg.cores import available_cores, default_readers
from wsi_seg.counts import counted
from wsi_seg.doctor.finding import Finding
from wsi_seg.errors import ConfigError
from wsi_seg.predict.batch import batch_for
from wsi_seg.predict.compiling import missing_compiler
from wsi_seg.predict.device import Device

# Side of the tile for which to report the batch size.
_TILE_PX = 512


def examine_choices() -> Iterator[Finding]:
    """Report the device, precision, batch size, compilation and readers that ``auto`` chooses."""
    try:
        device = Device.here("auto", "auto")
    except (ConfigError, RuntimeError) as error:
        yield Finding("device", str(error).partition("\n")[0], "bad", "see --device cpu")
        return
    on_gpu = torch.device(device.name).type == "cuda"
    why = "torch can use a GPU" if on_gpu else "torch sees no GPU"
    yield Finding("--device", f"{device.name}, because {why}")
    yield Finding("--precision", f"{device.precision}, because {_why_precision(device)}")
    batch = batch_for(device, _TILE_PX)
    how = "or a quarter of that if it is faster" if on_gpu else "more would not be faster"
    yield Finding("--batch", f"up to {counted(batch, 'tile')} of {_TILE_PX} pixels; {how}")
    yield _compile(device.name) if on_gpu else Finding("--compile", "off on a CPU")
    cores = available_cores()
    yield Finding("--readers", f"{default_readers()}, because of {counted(cores, 'core')}")


def _compile(gpu: str) -> Finding:
    if lacks := missing_compiler(gpu):
        advice = "large runs take up to twice as long"
        return Finding("--compile", f"off, because this machine lacks {lacks}", "note", advice)
    return Finding("--compile", "if that saves time")


def _why_precision(device: Device) -> str:
    if torch.device(device.name).type == "cuda":
        major, minor = torch.cuda.get_device_capability(device.name)
        has = "supports bf16" if device.precision == "bf16" else "does not support bf16"
        return f"the GPU (compute capability {major}.{minor}) {has}"
    has = "has" if device.precision == "bf16" else "has no"
    return f"the processor {has} instructions for bf16"
