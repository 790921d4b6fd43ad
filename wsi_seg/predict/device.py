"""Owns the compute device of networks: its choice, precision, free memory and timing."""

import os
import time
from collections import deque
from dataclasses import dataclass

import torch

from wsi_seg.cores import memory_limit
from wsi_seg.errors import ConfigError

_KINDS = ("cpu", "cuda")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device with this name; ``auto`` is CUDA if available, otherwise the CPU.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"got device {name!r}; expected auto, cpu or cuda[:N]") from error
    if device.type not in _KINDS:
        raise ConfigError(f"got device {name!r}; expected auto, cpu or cuda[:N]")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"got device {name!r}, but this machine has no usable CUDA device")
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else device


def visible_gpus() -> tuple[str, ...]:
    """Name the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` does."""
    count = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if chosen is None else chosen.split(",")
    return tuple(name.strip() for name in names)[:count]


def pick_precision(name: str, device: torch.device) -> str:
    """Return the precision of the forward pass: ``fp32``, ``bf16`` or ``fp16``.

    ``auto`` is bf16 if the hardware supports it natively, fp16 on CUDA cards that do not (T4,
    V100), and otherwise fp32.

    Raises
    ------
    ConfigError
        If the name is unknown, or the device does not support the precision.
    """
    if name == "fp16" and device.type == "cpu":
        raise ConfigError(
            "got precision fp16 on a CPU, where it is slower than fp32; use auto, fp32 or bf16"
        )
    if name in _DTYPES:
        return name
    if name != "auto":
        raise ConfigError(f"got precision {name!r}; expected auto, {', '.join(_DTYPES)}")
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    onednn = torch.backends.mkldnn.is_available()  # not on every Mac
    return "bf16" if onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype of weights and activations for a precision from `pick_precision`."""
    return _DTYPES[precision]


@dataclass(frozen=True, slots=True)
class Device:
    """Device and precision of networks, as plain data that pickles.

    Parameters
    ----------
    name
        Name of the device in torch.
    precision
        See `pick_precision`; never ``auto``.
    memory
        Free bytes in the device's own memory; None on a CPU.
    ram
        Bytes of main memory that the container of the process may use; None without a limit.
    """

    name: str
    precision: str
    memory: int | None
    ram: int | None = None

    @classmethod
    def here(cls, device: str, precision: str) -> "Device":
        """Pick device and precision on this machine; see `pick_device`, `pick_precision`."""
        found = pick_device(device)
        free = torch.cuda.mem_get_info(found)[0] if found.type == "cuda" else None
        return cls(str(found), pick_precision(precision, found), free, memory_limit())


class DeviceTimer:
    """Context manager that accumulates time on the device, without synchronising with it.

    Parameters
    ----------
    device
        On CUDA, events on the current stream are timed; elsewhere the wall clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spent = self._start = 0.0
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def __enter__(self) -> None:
        if self._cuda:
            self._events.append((_event(), _event()))
            self._events[-1][0].record()
        else:
            self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self._events[-1][1].record()
        else:
            self._spent += time.perf_counter() - self._start

    @property
    def seconds(self) -> float:
        """Seconds of the work that the device has finished, without waiting for the rest."""
        while self._events and self._events[0][1].query():
            begin, end = self._events.popleft()
            self._spent += begin.elapsed_time(end) / 1000
        return self._spent


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)
